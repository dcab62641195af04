import { describe, expect, test } from 'vitest'
import { createSeededRandom, randomInteger } from '../../base/random.ts'
import { obedientPlanner, testHost, testWanted } from '../../test/support/fleet-state.ts'
import { explain } from './explain.ts'
import { createFleetState, defaultPolicy, type IndexedState } from './fleet-state.ts'
import { schedule } from './schedule.ts'
import type { HostView, Policy, Wanted } from './types.ts'

const GiB = 2 ** 30
const minuteMs = 60_000

function fleetOf(hosts: readonly Partial<HostView>[], policy: Partial<Policy> = {}): IndexedState {
  const state = createFleetState({ ...defaultPolicy, ...policy })
  for (const host of hosts) state.setHost(testHost(host))
  return state
}

const numbered = (count: number, more: (at: number) => Partial<HostView> = () => ({})) =>
  Array.from({ length: count }, (_, at) => ({ name: `mac-${at + 1}`, ...more(at) }))

function run(state: IndexedState, nowMs = 0, wanted: readonly Wanted[] = []) {
  for (const one of wanted) state.want(one)
  return schedule(state, obedientPlanner(state), { nowMs, decisionsMost: 1_000 })
}

const places = (state: IndexedState, ...uids: string[]) => uids.map(uid => state.hostOf(uid))
const filler = (uid: string, host: string, cpu: number) => {
  const { request, machine, group } = testWanted({ cpu, group: 'filler' })
  return { uid, host, request, machine, group }
}

describe('which host', () => {
  test('balance takes the emptiest, pack the fullest that fits', () => {
    for (const [room, expected] of [
      ['balance', 'mac-1'],
      ['pack', 'mac-2'],
    ] as const) {
      const state = fleetOf(numbered(3), { room })
      state.occupy(filler('a', 'mac-2', 4))
      state.occupy(filler('b', 'mac-3', 8))
      run(state, 0, [testWanted({ cpu: 2 })])
      expect(places(state, 'web')).toEqual([expected])
    }
  })

  test('bytes of a large image that are there count more than a little room', () => {
    const digest = 'sha256:a'
    const holds = (at: number) => ({ mayHoldImage: (of: string) => at === 1 && of === digest })
    const state = fleetOf(numbered(3, holds))
    state.occupy(filler('a', 'mac-2', 2))
    run(state, 0, [testWanted({ image: { digest, bytes: 60 * GiB } })])
    expect(places(state, 'web')).toEqual(['mac-2'])
  })

  test('copies go to other racks, and strictly so over a label that is named', () => {
    const labels = (at: number) => ({ labels: { rack: `r${at % 3}`, power: `p${at % 2}` } })
    const state = fleetOf(numbered(6, labels))
    const copy = (uid: string, spread?: string) => testWanted({ uid, spread, group: uid.charAt(0) })
    run(state, 0, [copy('a1'), copy('a2'), copy('a3')])
    const racks = places(state, 'a1', 'a2', 'a3').map(
      host => state.host(host ?? '')?.labels['rack'],
    )
    expect(new Set(racks).size).toBe(3)
    const uids = Array.from({ length: 10 }, (_, at) => `b${at}`)
    // The first three hosts with p0 are nearly full: it does not matter.
    for (const host of ['mac-1', 'mac-3']) state.occupy(filler(host, host, 6))
    run(
      state,
      0,
      uids.map(uid => copy(uid, 'power')),
    )
    const power = places(state, ...uids).map(host => state.host(host ?? '')?.labels['power'])
    expect(power.filter(value => value === 'p0')).toHaveLength(5)
  })

  test('a host that is only to be avoided takes what no other has room for', () => {
    const taints = [{ key: 'old', effect: 'PreferNoSchedule' as const }]
    const state = fleetOf(numbered(2, at => (at === 0 ? { taints } : {})))
    run(state, 0, [testWanted({ uid: 'a', cpu: 7 }), testWanted({ uid: 'b', cpu: 7, sinceMs: 1 })])
    expect(places(state, 'a', 'b')).toEqual(['mac-2', 'mac-1'])
  })

  test('equals are not all sent to the first host, but to the same ones again', () => {
    const chosen = (seed: number) =>
      Array.from({ length: 20 }, (_, at) => {
        const state = fleetOf(numbered(5), { seed })
        run(state, 0, [testWanted({ uid: `u${at}` })])
        return state.hostOf(`u${at}`)
      })
    expect(new Set(chosen(1)).size).toBe(5)
    expect(chosen(1)).toEqual(chosen(1))
    expect(chosen(1)).not.toEqual(chosen(2))
  })

  test('a disk is where it is: cordoned or not, but not while its host is away', () => {
    const state = fleetOf(numbered(2, at => ({ schedulable: at > 0 })))
    const anchored = testWanted({ anchor: 'mac-1', hostSelector: { gone: 'label' } })
    run(state, 0, [anchored])
    expect(places(state, 'web')).toEqual(['mac-1'])
    state.vacate('web')
    state.setHost(testHost({ name: 'mac-1', ready: false }))
    const [waiting] = run(state, 0, [anchored]).waiting
    expect(waiting?.reasons()).toEqual([{ hosts: 1, text: 'mac-1 has its disk: it is not ready' }])
  })

  test('a host that refused is left out until then', () => {
    const state = fleetOf(numbered(1))
    const refusals = [{ host: 'mac-1', reason: 'its disk is full', untilMs: 100 }]
    const [waiting] = run(state, 99, [testWanted({ refusals })]).waiting
    expect(waiting?.reasons()).toEqual([{ hosts: 1, text: 'it refused: its disk is full' }])
    run(state, 100)
    expect(places(state, 'web')).toEqual(['mac-1'])
  })

  test('macOS guests are counted, Linux guests beside them not', () => {
    const state = fleetOf(numbered(1))
    const uids = ['a', 'b', 'c']
    run(
      state,
      0,
      uids.map(uid => testWanted({ uid, machine: 'macos' })),
    )
    expect(places(state, ...uids)).toEqual(['mac-1', 'mac-1', undefined])
    run(state, 0, [testWanted({ uid: 'd', sinceMs: 1 })])
    expect(places(state, 'd')).toEqual(['mac-1'])
  })
})

describe('the queue', () => {
  test('higher priority first, then who has waited longer', () => {
    const state = fleetOf(numbered(1))
    const whole = (uid: string, priority: number, sinceMs: number) =>
      testWanted({ uid, priority, sinceMs, cpu: 8 })
    const queue = [whole('late', 1, 2), whole('low', 0, 0), whole('early', 1, 1)]
    const { placed, waiting } = run(state, 0, queue)
    expect(placed.map(({ machine }) => machine.uid)).toEqual(['early'])
    expect(waiting.map(({ machine, place }) => [machine.uid, place])).toEqual([
      ['late', 1],
      ['low', 2],
    ])
  })

  test('what the planner refuses stays in the queue, its room kept for it in this round', () => {
    const state = fleetOf(numbered(1))
    state.want(testWanted({ uid: 'a', cpu: 6 }))
    state.want(testWanted({ uid: 'b', cpu: 6, sinceMs: 1 }))
    const planner = { place: () => false }
    const round = schedule(state, planner, { nowMs: 0, decisionsMost: 10 })
    expect(round.placed).toEqual([])
    expect(round.waiting.map(({ machine, place }) => [machine.uid, place])).toEqual([['b', 2]])
  })

  test('a round ends at its most decisions', () => {
    const state = fleetOf(numbered(1))
    for (const uid of ['a', 'b', 'c']) state.want(testWanted({ uid }))
    const round = schedule(state, obedientPlanner(state), { nowMs: 0, decisionsMost: 2 })
    expect(round).toMatchObject({ placed: { length: 2 }, more: true })
  })

  test('reasons are told of many hosts together, in few words', () => {
    const state = fleetOf([
      ...numbered(7),
      ...numbered(2, at => ({ name: `gpu-${at}`, taints: [{ key: 'gpu', effect: 'NoSchedule' }] })),
      { name: 'small', allocatable: { cpu: 2, memoryBytes: GiB, diskBytes: 0, machines: 9 } },
    ])
    for (const host of state.hosts()) state.occupy(filler(host.name, host.name, 1))
    for (let at = 1; at <= 7; at++) state.occupy(filler(`m${at}`, `mac-${at}`, at === 1 ? 6 : 5))
    const [waiting] = run(state, 0, [testWanted({ cpu: 4 })]).waiting
    expect(waiting?.reasons()).toEqual([
      { hosts: 7, text: 'wants 4 cores, at most 2 are free' },
      { hosts: 2, text: 'the taint gpu is not tolerated' },
      { hosts: 1, text: 'wants 4 cores, 1 are free; wants 4Gi of memory, 0 are free' },
    ])
  })
})

describe('room that is kept', () => {
  test('for a higher priority at once, and an explanation says for whom', () => {
    const state = fleetOf(numbered(1))
    state.occupy(filler('a', 'mac-1', 1))
    const big = testWanted({ uid: 'big', cpu: 8, priority: 1 })
    const small = testWanted({ uid: 'small', sinceMs: 1 })
    const { waiting } = run(state, 0, [big, small])
    expect(places(state, 'small')).toEqual([undefined])
    const kept = [{ hosts: 1, text: 'what is free is kept for default/big' }]
    expect(waiting[1]?.reasons()).toEqual(kept)
    expect(explain(state, small, 0)).toMatchObject({ place: 2, queued: 2, reasons: kept })
    state.vacate('a')
    run(state)
    expect(places(state, 'big')).toEqual(['mac-1'])
  })

  test('on one host at first, on more the longer it takes', () => {
    const placedBeside = (nowMs: number) => {
      const state = fleetOf(numbered(8))
      for (const { name } of numbered(8)) state.occupy(filler(name, name, 7))
      const small = Array.from({ length: 8 }, (_, at) => testWanted({ uid: `s${at}`, sinceMs: 1 }))
      return run(state, nowMs, [testWanted({ uid: 'big', cpu: 8, priority: 1 }), ...small]).placed
    }
    expect(placedBeside(0)).toHaveLength(7)
    expect(placedBeside(1 * minuteMs)).toHaveLength(6)
    expect(placedBeside(2 * minuteMs)).toHaveLength(4)
    expect(placedBeside(3 * minuteMs)).toHaveLength(0)
  })

  test('for who could never run nothing is kept', () => {
    const state = fleetOf(numbered(1))
    const never = testWanted({ uid: 'never', cpu: 9, priority: 1 })
    run(state, 60 * minuteMs, [never, testWanted({ uid: 'small' })])
    expect(places(state, 'small')).toEqual(['mac-1'])
  })

  /** Guests end at random and others want their room at once: a stream that never stops. */
  function minutesUntilPlaced(priority: number, policy: Partial<Policy>): number {
    const random = createSeededRandom(7)
    const state = fleetOf(numbered(12), policy)
    const full = Array.from({ length: 12 * 8 }, (_, at) => testWanted({ uid: `f${at}` }))
    const running = run(state, 0, full).placed.map(({ machine }) => machine.uid)
    state.want(testWanted({ uid: 'big', cpu: 8, priority }))
    for (let minute = 0; minute < 500; minute++) {
      for (let at = 0; at < 30; at++) {
        state.want(testWanted({ uid: `s${minute}-${at}`, sinceMs: minute * minuteMs }))
      }
      const { placed } = run(state, minute * minuteMs)
      if (state.hostOf('big') !== undefined) return minute
      for (const { machine } of placed) running.push(machine.uid)
      // Half of the hosts have guests that run for ever.
      for (let at = 0; at < 8; at++) {
        const [ending] = running.splice(randomInteger(random, running.length), 1)
        const host = Number(state.hostOf(ending ?? '')?.slice('mac-'.length))
        if (ending !== undefined && host > 6) state.vacate(ending)
      }
      for (const { uid } of [...state.queue()]) if (uid !== 'big') state.unwant(uid)
    }
    return Number.POSITIVE_INFINITY
  }

  test('a big machine starts in the end, whatever small ones keep coming', () => {
    const never = { patienceMs: Number.POSITIVE_INFINITY }
    expect(minutesUntilPlaced(1, {})).toBeLessThan(30)
    expect(minutesUntilPlaced(0, {})).toBeLessThan(30)
    expect(minutesUntilPlaced(0, never)).toBe(Number.POSITIVE_INFINITY)
  })
})

describe('an explanation', () => {
  test('of one that is only thought of: as if it came last of its priority', () => {
    const state = fleetOf(numbered(2))
    state.occupy(filler('a', 'mac-1', 4))
    state.occupy(filler('b', 'mac-2', 6))
    run(state, 0, [testWanted({ uid: 'low', cpu: 8, priority: -1 })])
    const thought = explain(state, testWanted({ uid: 'thought', cpu: 3, sinceMs: 5 }), 5)
    expect(thought).toMatchObject({
      best: 'mac-1',
      queued: 1,
      reasons: [{ hosts: 1, text: 'wants 3 cores, 2 are free' }],
      hosts: [{ host: 'mac-1' }, { host: 'mac-2', objections: ['wants 3 cores, 2 are free'] }],
    })
    expect(thought.place).toBeUndefined()
    const humble = testWanted({ uid: 'humble', cpu: 3, priority: -2 })
    expect(explain(state, humble, 0).best).toBeUndefined()
  })

  test('of one that has its place: as if it had none yet, and nothing is changed', () => {
    const state = fleetOf(numbered(2))
    state.occupy(filler('a', 'mac-1', 1))
    run(state, 0, [testWanted({ cpu: 8 })])
    const said = explain(state, testWanted({ cpu: 8 }), 0)
    expect(said).toMatchObject({ current: 'mac-2', best: 'mac-2', queued: 0 })
    expect(state.hostOf('web')).toBe('mac-2')
    expect(state.reserved('mac-2')).toMatchObject({ cpu: 8, machines: 1 })
  })
})

test('what takes room on a host that is gone takes it when the host is back', () => {
  const state = fleetOf(numbered(1))
  state.occupy(filler('a', 'mac-1', 7))
  state.removeHost('mac-1')
  const [waiting] = run(state, 0, [testWanted({ cpu: 2 })]).waiting
  expect(waiting?.reasons()).toEqual([{ hosts: 0, text: 'there are no hosts' }])
  state.setHost(testHost({ name: 'mac-1' }))
  expect(run(state).placed).toEqual([])
  state.vacate('a')
  expect(run(state).placed).toHaveLength(1)
})

test('hosts that come and go leave nothing behind', () => {
  const state = fleetOf(numbered(3))
  for (let at = 0; at < 100; at++) {
    state.setHost(testHost({ name: `passing-${at}` }))
    state.removeHost(`passing-${at}`)
  }
  expect(state.table.size).toBe(4)
  expect([...state.hosts()]).toHaveLength(3)
})
