import fc from 'fast-check'
import { expect, test } from 'vitest'
import { obedientPlanner, testHost, testWanted } from '../../test/support/fleet-state.ts'
import { type PlainKeep, plainKeeps, plainScore } from '../../test/support/plain-scheduler.ts'
import { explain } from './explain.ts'
import { createFleetState, defaultBounds, type IndexedState } from './fleet-state.ts'
import { placedFirst } from './queue.ts'
import { schedule } from './schedule.ts'
import type { Decision, HostView, Placed, Policy, Round, Wanted } from './types.ts'

const GiB = 2 ** 30
const nowMs = 10 * 60_000
const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined })
const digests = ['sha256:a', 'sha256:b', 'sha256:c']
const hostNames = Array.from({ length: 8 }, (_, at) => `mac-${at}`)

const taint = fc.record({
  key: fc.constantFrom('gpu', 'old'),
  effect: fc.constantFrom('NoSchedule' as const, 'PreferNoSchedule' as const),
})
// Mostly hosts that take things: what is rare is rare in a fleet too.
const mostly = (usual: boolean) =>
  fc.oneof({ weight: 6, arbitrary: fc.constant(usual) }, fc.constant(!usual))
const host: fc.Arbitrary<HostView> = fc
  .record({
    name: fc.constantFrom(...hostNames),
    labels: fc.record(
      { rack: fc.constantFrom('r1', 'r2', 'r3'), disk: fc.constantFrom('ssd', 'nvme') },
      { requiredKeys: [] },
    ),
    taints: fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, fc.array(taint, { maxLength: 2 })),
    schedulable: mostly(true),
    ready: mostly(true),
    arch: fc.oneof({ weight: 8, arbitrary: fc.constant('x86_64') }, fc.constant('aarch64')),
    cpuFlags: maybe(fc.constant(new Set(['avx2']))),
    macosGuestsMost: fc.integer({ min: 0, max: 2 }),
    tenths: fc.integer({ min: 5, max: 80 }),
    gibibytes: fc.integer({ min: 1, max: 16 }),
    machines: fc.integer({ min: 1, max: 6 }),
    held: fc.subarray(digests),
  })
  .map(({ tenths, gibibytes, machines, held, ...given }) => ({
    ...testHost(given),
    allocatable: { cpu: tenths / 10, memoryBytes: gibibytes * GiB, diskBytes: 0, machines },
    mayHoldImage: digest => held.includes(digest),
  }))
const demand = fc
  .record({ tenths: fc.integer({ min: 1, max: 60 }), gibibytes: fc.integer({ min: 1, max: 12 }) })
  .map(({ tenths, gibibytes }) => ({
    cpu: tenths / 10,
    memoryBytes: gibibytes * GiB,
    diskBytes: 0,
    machines: 1,
  }))
const machine = fc.constantFrom('linux' as const, 'linux' as const, 'macos' as const)
const group = fc.constantFrom('ci', 'web')
const own = fc.record({
  uid: fc.uuid(),
  priority: fc.constantFrom(0, 0, 1, 2),
  sinceMs: fc.integer({ min: 0, max: nowMs }),
  request: demand,
  anchor: fc.oneof({ weight: 5, arbitrary: fc.constant(undefined) }, fc.constantFrom(...hostNames)),
  refusals: maybe(
    fc.array(
      fc.record({
        host: fc.constantFrom(...hostNames),
        reason: fc.constant('full'),
        untilMs: fc.constantFrom(nowMs - 1, nowMs + 1),
      }),
      { maxLength: 2 },
    ),
  ),
})
/** What machines need; only a few kinds at a time, as in a fleet. */
const needs = fc
  .record({
    machine,
    group,
    arch: fc.oneof({ weight: 8, arbitrary: fc.constant('x86_64') }, fc.constant('aarch64')),
    cpuFlags: fc.oneof({ weight: 5, arbitrary: fc.constant(undefined) }, fc.constant(['avx2'])),
    hostSelector: fc.oneof(
      { weight: 4, arbitrary: fc.constant(undefined) },
      fc.constantFrom<Record<string, string>>({ disk: 'ssd' }, { rack: 'r1', disk: 'nvme' }),
    ),
    tolerations: maybe(
      fc.constantFrom(
        [{ operator: 'Exists' as const }],
        [{ key: 'gpu', operator: 'Equal' as const }],
      ),
    ),
    spread: maybe(fc.constantFrom('rack', 'disk')),
    image: maybe(
      fc.record({
        digest: fc.constantFrom(...digests),
        bytes: fc.integer({ min: 1, max: 64 * GiB }),
      }),
    ),
  })
  .map(given => testWanted(given))
const queue: fc.Arbitrary<Wanted[]> = fc
  .tuple(
    fc.array(needs, { minLength: 1, maxLength: 5 }),
    fc.uniqueArray(fc.tuple(own, fc.nat(4)), { selector: ([{ uid }]) => uid, maxLength: 24 }),
  )
  .map(([kinds, owns]) =>
    owns.map(([its, at]) => ({ ...testWanted(), ...kinds[at % kinds.length], ...its })),
  )
const placed: fc.Arbitrary<Placed> = fc.record({
  uid: fc.uuid(),
  host: fc.constantFrom(...hostNames),
  request: demand,
  machine,
  group,
})
const policy: fc.Arbitrary<Policy> = fc.record({
  room: fc.constantFrom('balance' as const, 'pack' as const),
  seed: fc.nat(),
  patienceMs: fc.constantFrom(2 * 60_000, 8 * 60_000),
  widenMs: fc.constantFrom(2 * 60_000, 4 * 60_000),
})
const fleet = fc.record({
  policy,
  hosts: fc.uniqueArray(host, { selector: ({ name }) => name, minLength: 1, maxLength: 8 }),
  residents: fc.uniqueArray(placed, { selector: ({ uid }) => uid, maxLength: 6 }),
  queue,
})
type Given = typeof fleet extends fc.Arbitrary<infer T> ? T : never

function stateOf({ policy, hosts, residents, queue }: Given): IndexedState {
  const state = createFleetState(policy)
  for (const resident of residents) state.occupy(resident)
  for (const next of hosts) state.setHost(next)
  for (const next of queue) state.want(next)
  return state
}

const run = (state: IndexedState): Round =>
  schedule(state, obedientPlanner(state), { nowMs, decisionsMost: 1_000 })
const told = ({ placed: decisions, waiting }: Round) => ({
  placed: decisions.map(({ machine: { uid }, host: name, score }) => [uid, name, score]),
  waiting: waiting.map(({ machine: { uid }, place, reasons }) => [uid, place, reasons()]),
})

test('no host that was given a machine has promised more than it has', () => {
  fc.assert(
    fc.property(fleet, given => {
      const state = stateOf(given)
      const { placed: decisions } = run(state)
      for (const name of new Set(decisions.map(({ host: name }) => name))) {
        const there = given.hosts.find(other => other.name === name)
        const ours = decisions.filter(decision => decision.host === name)
        const all = [
          ...given.residents.filter(resident => resident.host === name),
          ...ours.map(decision => decision.machine),
        ]
        const most = there?.allocatable ?? { cpu: 0, memoryBytes: 0, machines: 0 }
        const tenths = all.reduce((sum, { request }) => sum + Math.round(request.cpu * 10), 0)
        const memory = all.reduce((sum, { request }) => sum + request.memoryBytes, 0)
        expect(tenths).toBeLessThanOrEqual(Math.round(most.cpu * 10))
        expect(memory).toBeLessThanOrEqual(most.memoryBytes)
        expect(all.length).toBeLessThanOrEqual(most.machines)
        expect(state.reserved(name).machines).toBe(all.length)
        if (ours.every(decision => decision.machine.machine === 'linux')) continue
        const guests = all.filter(one => one.machine === 'macos').length
        expect(guests).toBeLessThanOrEqual(there?.macosGuestsMost ?? 0)
      }
    }),
    { numRuns: 400 },
  )
})

test('every decision is as good as the best by plain rules, in the order of the queue', () => {
  fc.assert(
    fc.property(fleet, fc.array(fc.nat(23), { maxLength: 3 }), (given, refusedTurns) => {
      const state = stateOf(given)
      const order = given.queue.toSorted(placedFirst)
      const refused = new Set(refusedTurns.map(at => order[at]?.uid))
      const offered = new Map<string, Decision>()
      const willing = obedientPlanner(state)
      const place = (decision: Decision) => {
        offered.set(decision.machine.uid, decision)
        return !refused.has(decision.machine.uid) && willing.place(decision)
      }
      schedule(state, { place }, { nowMs, decisionsMost: 1_000 })
      const plain = { ...given, bounds: defaultBounds, nowMs, placed: [...given.residents] }
      let keeps: PlainKeep[] = []
      let later: Wanted[] = []
      for (const next of order) {
        const [first] = later
        if (first !== undefined && first.priority !== next.priority) {
          for (const one of later) keeps = [...keeps, ...plainKeeps(plain, keeps, one)]
          later = []
        }
        const scores = new Map<string, number>()
        for (const one of given.hosts) {
          const score = plainScore(plain, keeps, next, one)
          if (score !== undefined) scores.set(one.name, score)
        }
        const decision = offered.get(next.uid)
        if (decision === undefined) {
          expect([...scores]).toEqual([])
          if (nowMs - next.sinceMs < given.policy.patienceMs) later.push(next)
          else keeps = [...keeps, ...plainKeeps(plain, keeps, next)]
          continue
        }
        expect(scores.get(decision.host)).toBeCloseTo(decision.score, 9)
        expect(Math.max(...scores.values())).toBeCloseTo(decision.score, 9)
        if (refused.has(next.uid)) keeps = [...keeps, { host: decision.host, wanted: next }]
        else plain.placed.push({ ...next, host: decision.host })
      }
    }),
    { numRuns: 600 },
  )
})

test('an explanation says what the decision is, and why there is none', () => {
  fc.assert(
    fc.property(fleet, given => {
      const state = stateOf(given)
      const willing = obedientPlanner(state)
      const place = (decision: Decision) => {
        const said = explain(state, decision.machine, nowMs)
        expect(said.best).toBe(decision.host)
        expect(said.hosts[0]).toMatchObject({ host: decision.host, score: decision.score })
        const { image, taints, room, spread } = said.hosts[0]?.parts ?? { image: Number.NaN }
        expect(image + (taints ?? 0) + (room ?? 0) + (spread ?? 0)).toBe(decision.score)
        expect(said.hosts).toHaveLength(given.hosts.length)
        return willing.place(decision)
      }
      const { waiting } = schedule(state, { place }, { nowMs, decisionsMost: 1_000 })
      for (const { machine: next, place: at, reasons } of waiting) {
        const said = explain(state, next, nowMs)
        expect(said.best).toBeUndefined()
        expect(said.hosts.filter(({ objections }) => objections.length === 0)).toEqual([])
        expect(said).toMatchObject({ place: at, queued: waiting.length, reasons: reasons() })
      }
    }),
    { numRuns: 300 },
  )
})

test('the same state gives the same decisions, whatever way it came to be', () => {
  const history = fc.record({
    hosts: fc.infiniteStream(fc.nat()),
    strangers: fc.uniqueArray(fc.uuid(), { minLength: 3, maxLength: 3 }),
    passing: fc.array(placed, { maxLength: 6 }),
  })
  fc.assert(
    fc.property(fleet, history, (given, { hosts: stream, strangers, passing }) => {
      const shuffled = <T>(list: readonly T[]): T[] =>
        list
          .map(value => ({ value, at: stream.next().value ?? 0 }))
          .sort((one, other) => one.at - other.at)
          .map(({ value }) => value)
      const before = run(stateOf(given))
      const state = createFleetState(given.policy)
      for (const name of strangers) state.setHost(testHost({ name }))
      for (const next of shuffled(given.queue)) state.want({ ...next, priority: 7 })
      for (const next of given.hosts) state.setHost(testHost({ name: next.name }))
      for (const resident of passing) state.occupy(resident)
      for (const name of strangers) state.removeHost(name)
      // What is remembered of hosts as they were must not be used for what they become.
      for (const next of given.queue) explain(state, next, nowMs)
      for (const next of shuffled(given.hosts)) state.setHost(next)
      for (const resident of shuffled(given.residents)) state.occupy(resident)
      for (const { uid } of passing) state.vacate(uid)
      for (const next of shuffled(given.queue)) state.want(next)
      expect(told(run(state))).toEqual(told(before))
    }),
    { numRuns: 300 },
  )
})
