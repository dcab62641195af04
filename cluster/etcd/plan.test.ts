import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  defaultPlanTiming,
  type EtcdSituation,
  type PlannedHost,
  type PlannedMember,
  planStep,
  quorumOf,
  wantedVoters,
} from './plan.ts'

const longMs = 3_600_000

const host = (name: string, rest: Partial<PlannedHost> = {}): PlannedHost => ({
  name,
  alive: true,
  cordoned: false,
  shunned: false,
  ...rest,
})
const member = (name: string, rest: Partial<PlannedMember> = {}): PlannedMember => ({
  id: `id-${name}`,
  host: name,
  isLearner: false,
  leads: false,
  unhealthyMs: 0,
  ...rest,
})
const step = (situation: Partial<EtcdSituation>) =>
  planStep({ members: [], hosts: [], votersMost: 3, evenMs: 0, ...situation }, defaultPlanTiming)

describe('how many voters', () => {
  test.each([
    [1, 3, 1],
    [2, 3, 1],
    [3, 3, 3],
    [4, 3, 3],
    [7, 3, 3],
    [4, 5, 3],
    [7, 5, 5],
  ])('%i hosts, at most %i: %i', (hosts, most, wanted) => {
    expect(wantedVoters(hosts, most)).toBe(wanted)
  })
})

describe('the next step', () => {
  const three = [host('a', { rack: 'r1' }), host('b', { rack: 'r1' }), host('c', { rack: 'r2' })]

  test('a third host makes a learner, in another rack first', () => {
    expect(step({ members: [member('a')], hosts: three })).toMatchObject({
      kind: 'addLearner',
      host: 'c',
    })
  })

  test('not with a second host that lives only: two voters are no safer than one', () => {
    const hosts = [host('a'), host('b'), host('c', { alive: false })]
    expect(step({ members: [member('a')], hosts })).toMatchObject({ kind: 'none' })
  })

  test('a cordoned host comes last', () => {
    const hosts = [...three.slice(0, 2), host('c', { rack: 'r2', cordoned: true })]
    expect(step({ members: [member('a')], hosts })).toMatchObject({ host: 'b' })
  })

  test('a learner is promoted once it answers, and taken back when it never does', () => {
    const learner = (unhealthyMs: number) => member('c', { isLearner: true, unhealthyMs })
    const members = (unhealthyMs: number) => [member('a'), learner(unhealthyMs)]
    expect(step({ members: members(0), hosts: three })).toMatchObject({ kind: 'promote' })
    expect(step({ members: members(500), hosts: three })).toMatchObject({ kind: 'none' })
    expect(step({ members: members(longMs), hosts: three })).toMatchObject({
      kind: 'remove',
      id: 'id-c',
    })
  })

  test('a dead voter goes only when another host can take over', () => {
    const members = [member('a'), member('b', { unhealthyMs: longMs }), member('c')]
    const off = three.map(one => (one.name === 'b' ? { ...one, alive: false } : one))
    expect(step({ members, hosts: off })).toMatchObject({ kind: 'none' })
    // Its host lives, so its data is bad or its disk full: it begins anew, unless that failed.
    expect(step({ members, hosts: three })).toMatchObject({ kind: 'remove', id: 'id-b' })
    const shunned = three.map(one => ({ ...one, shunned: true }))
    expect(step({ members, hosts: shunned })).toMatchObject({ kind: 'none' })
    const hosts = [...off, host('d', { rack: 'r1' })]
    expect(step({ members, hosts })).toMatchObject({ kind: 'remove', id: 'id-b' })
    const briefly = [member('a'), member('b', { unhealthyMs: 20_000 }), member('c')]
    expect(step({ members: briefly, hosts })).toMatchObject({ kind: 'none' })
  })

  test('a voter of a host that left goes, the last one only after its successor came', () => {
    expect(
      step({ members: ['a', 'b', 'x'].map(name => member(name)), hosts: three }),
    ).toMatchObject({ kind: 'remove', id: 'id-x' })
    expect(step({ members: [member('x')], hosts: [host('a')] })).toMatchObject({
      kind: 'addLearner',
      host: 'a',
    })
    const both = [member('x'), member('a')]
    expect(step({ members: both, hosts: [host('a')] })).toMatchObject({ id: 'id-x' })
  })

  test('two of three hosts left: back to one voter', () => {
    const members = [member('a', { leads: true }), member('b')]
    const hosts = [host('a'), host('b')]
    expect(step({ members, hosts })).toMatchObject({ kind: 'remove', id: 'id-b' })
  })

  test('two voters with no third host: one is given up, after a while', () => {
    const members = [member('a', { leads: true }), member('b')]
    const hosts = [host('a'), host('b'), host('c', { alive: false })]
    expect(step({ members, hosts, evenMs: 1000 })).toMatchObject({ kind: 'none' })
    expect(step({ members, hosts, evenMs: longMs })).toMatchObject({ kind: 'remove', id: 'id-b' })
  })

  test('without a quorum nothing is done', () => {
    const dead = { unhealthyMs: longMs }
    const members = [member('a'), member('b', dead), member('c', dead)]
    expect(step({ members, hosts: [...three, host('d')] })).toMatchObject({ kind: 'none' })
  })
})

/** A fleet whose members change as the planner says and as chance has it. */
interface Model {
  hosts: PlannedHost[]
  members: PlannedMember[]
  next: number
}

/** Does the planner's one step. @returns whether there was one */
function advance(model: Model, votersMost: number, evenMs: number): boolean {
  const voters = model.members.filter(({ isLearner }) => !isLearner)
  const healthy = voters.filter(({ unhealthyMs }) => unhealthyMs === 0)
  const hadQuorum = healthy.length >= quorumOf(voters.length)
  const decided = step({ ...model, votersMost, evenMs })
  if (decided.kind === 'none') return false
  expect(hadQuorum).toBe(true)
  if (decided.kind === 'addLearner') {
    // What etcd itself asks for.
    expect(model.members.filter(({ isLearner }) => isLearner)).toEqual([])
    expect(healthy.length).toBe(voters.length)
    expect(model.hosts.find(({ name }) => name === decided.host)?.alive).toBe(true)
    expect(model.members.some(({ host }) => host === decided.host)).toBe(false)
    const id = `id-${model.next++}`
    model.members.push(member(decided.host, { id, isLearner: true }))
  } else if (decided.kind === 'promote') {
    model.members = model.members.map(one =>
      one.id === decided.id ? { ...one, isLearner: false } : one,
    )
  } else {
    model.members = model.members.filter(({ id }) => id !== decided.id)
  }
  const after = model.members.filter(({ isLearner }) => !isLearner)
  const stillHealthy = after.filter(({ unhealthyMs }) => unhealthyMs === 0)
  expect(stillHealthy.length).toBeGreaterThanOrEqual(quorumOf(after.length))
  return true
}

/** Steps until there is none; `evenMs` as if every step took long. */
function settle(model: Model, votersMost: number): number {
  for (let steps = 0; steps < 60; steps++) {
    if (!advance(model, votersMost, longMs)) return steps
  }
  throw new Error(`it does not come to rest: ${JSON.stringify(model)}`)
}

const hostsArbitrary = fc
  .array(
    fc.record({
      rack: fc.constantFrom('r1', 'r2', 'r3'),
      alive: fc.boolean(),
      cordoned: fc.boolean(),
    }),
    { minLength: 1, maxLength: 9 },
  )
  .map(hosts =>
    hosts.map((one, index) => host(`h${index}`, { ...one, alive: index === 0 || one.alive })),
  )

const eventArbitrary = fc.record({
  kind: fc.constantFrom(
    'die',
    'return',
    'silent',
    'leave',
    'join',
    'cordon',
    'step',
    'step',
    'step',
  ),
  index: fc.nat(20),
})

/** What chance does to one host; a member answers when its host lives. */
function happen(model: Model, { kind, index }: { kind: string; index: number }): void {
  const at = index % model.hosts.length
  const name = model.hosts[at]?.name
  const change = (rest: Partial<PlannedHost>) => {
    model.hosts = model.hosts.map(one => (one.name === name ? { ...one, ...rest } : one))
  }
  const silence = (unhealthyMs: number) => {
    model.members = model.members.map(one => (one.host === name ? { ...one, unhealthyMs } : one))
  }
  if (kind === 'die') {
    change({ alive: false })
    silence(longMs)
  } else if (kind === 'return') {
    change({ alive: true })
    silence(0)
  } else if (kind === 'silent') silence(10_000)
  else if (kind === 'sick') silence(longMs)
  else if (kind === 'cordon') change({ cordoned: true })
  else if (kind === 'join') model.hosts.push(host(`n${model.next++}`, { rack: `r${index % 3}` }))
  else if (kind === 'leave' && model.hosts.length > 1) {
    model.hosts = model.hosts.filter(one => one.name !== name)
    model.members = model.members.map(one => ({
      ...one,
      host: one.host === name ? undefined : one.host,
    }))
  }
}

describe('whatever happens', () => {
  test('no step loses the quorum, and the voters come to be as wanted, spread over racks', () => {
    fc.assert(
      fc.property(
        hostsArbitrary,
        fc.constantFrom(1, 3, 5),
        fc.array(eventArbitrary, { maxLength: 30 }),
        (hosts, votersMost, events) => {
          const model: Model = { hosts, members: [member('h0', { id: 'id-first' })], next: 0 }
          settle(model, votersMost)
          for (const event of events) {
            if (event.kind === 'step') advance(model, votersMost, 0)
            else happen(model, event)
          }
          settle(model, votersMost)
          // Then everything is well again, and after enough steps as it should be.
          for (let index = 0; index < model.hosts.length; index++) {
            happen(model, { kind: 'return', index })
          }
          model.hosts = model.hosts.map(one => ({ ...one, cordoned: false }))
          model.members = model.members.map(one => ({ ...one, unhealthyMs: 0 }))
          settle(model, votersMost)
          const racks = new Map<string, number>()
          for (const { host: name, isLearner } of model.members) {
            expect(isLearner).toBe(false)
            const rack = model.hosts.find(one => one.name === name)?.rack ?? 'none'
            racks.set(rack, (racks.get(rack) ?? 0) + 1)
          }
          expect(model.members).toHaveLength(wantedVoters(model.hosts.length, votersMost))
          const free = model.hosts.filter(
            one => !model.members.some(({ host: h }) => h === one.name),
          )
          const most = Math.max(...racks.values())
          for (const { rack } of free) {
            expect(most - (racks.get(rack ?? '') ?? 0)).toBeLessThanOrEqual(1)
          }
        },
      ),
      { numRuns: 2000 },
    )
  })
})
