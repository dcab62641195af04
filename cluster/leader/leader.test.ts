import { describe, expect, test } from 'vitest'
import { failure } from '../../base/errors.ts'
import { findCondition } from '../../resources/condition.ts'
import { hostKind } from '../../resources/host.ts'
import { virtualMachineKind } from '../../resources/virtual-machine.ts'
import { leaderBench } from '../../test/support/leader-bench.ts'
import { noFacts } from '../fleet/facts.ts'
import { hostLeaseKey, placementPrefix } from '../fleet/keys.ts'
import { takesRoom } from '../fleet/placement.ts'
import { sumOf } from '../scheduler/amounts.ts'
import type { Store, Transaction } from '../store/store.ts'
import { explainPlacement } from './explain.ts'

const reference = (name: string) => ({ namespace: 'default', name })
const unavailable = failure('unavailable', { what: 'the store', detail: 'a test', advice: '' })
const assigns = ({ operations }: Transaction): boolean =>
  operations.some(one => 'put' in one && one.put.startsWith(placementPrefix))

describe('placing', () => {
  test('gives a machine to a host, which claims and runs it', async () => {
    const bench = await leaderBench()
    const host = await bench.host({ name: 'h1' })
    bench.leader('h1')
    const machine = await bench.machine('web')
    await bench.until(async () => (await bench.find('web'))?.status?.phase === 'Running')
    expect([...host.running]).toEqual([machine.metadata.uid])
    expect(await bench.placement('web')).toMatchObject({ state: 'Claimed', epoch: 1, host: 'h1' })
    expect(await bench.events('web')).toContain('Scheduled')
  })

  test('leaves alone what should not run, and places it when it should', async () => {
    const bench = await leaderBench()
    await bench.host({ name: 'h1' })
    bench.leader('h1')
    await bench.machine('web', { powerState: 'Stopped' })
    await bench.clock.advance(5_000)
    expect(await bench.placements()).toEqual([])
    await bench.objects.change(virtualMachineKind, reference('web'), ({ spec, ...rest }) => ({
      ...rest,
      spec: { ...spec, powerState: 'Running' as const },
    }))
    await bench.until(async () => (await bench.placement('web'))?.state === 'Claimed')
  })

  test('never promises more than there is, in a burst of 1,000 on 30 hosts', async () => {
    const bench = await leaderBench()
    for (let at = 0; at < 30; at++) {
      await bench.host({ name: `h${at}`, allocatable: { cpu: 20 } })
    }
    bench.leader('h0')
    const most = { cpu: 0 }
    const check = async () => {
      const placements = (await bench.placements()).filter(takesRoom)
      const hosts = new Set(placements.map(({ host }) => host))
      for (const host of hosts) {
        const own = placements.filter(placement => placement.host === host)
        most.cpu = Math.max(most.cpu, sumOf(own.map(({ request }) => request)).cpu)
      }
      expect(most.cpu).toBeLessThanOrEqual(20)
      return placements.length
    }
    const creating = Array.from({ length: 1_000 }, (_, at) => bench.machine(`m${at}`))
    await Promise.all(creating)
    await bench.until(async () => (await check()) === 600)
    await bench.clock.advance(20_000)
    expect(await check()).toBe(600)
    const { items } = await bench.objects.list(virtualMachineKind)
    const waiting = items.filter(({ status }) => status?.phase === 'Pending')
    expect(waiting).toHaveLength(400)
    const ready = findCondition(waiting[0]?.status?.conditions, 'Ready')
    expect(ready).toMatchObject({ status: 'False', reason: 'Unschedulable' })
    expect(ready?.message).toMatch(/30 hosts: .*; number \d+ of 400 that wait/)
    // Room that appears is used, and who waited is told.
    const placed = items.filter(({ status }) => status?.phase === 'Running')
    for (const { metadata } of placed.slice(0, 50)) {
      await bench.objects.remove(virtualMachineKind, reference(metadata.name))
    }
    await bench.until(async () => {
      const running = (await bench.placements()).filter(({ state }) => state === 'Claimed')
      return running.length === 600 && (await check()) === 600
    })
  }, 60_000)

  test('asks another host when one refuses, and the same again after a while', async () => {
    const bench = await leaderBench()
    const first = await bench.host({ name: 'h1' })
    const second = await bench.host({ name: 'h2' })
    for (const host of [first, second]) host.refuses.add('web')
    bench.leader('h1')
    await bench.machine('web')
    await bench.until(async () => (await bench.placement('web'))?.epoch === 2, 1_000)
    await bench.until(async () => (await bench.placement('web'))?.state === 'Refused')
    await bench.clock.advance(60_000)
    // Twice after 2 s, 4 s and so on: less and less often.
    const epoch = (await bench.placement('web'))?.epoch ?? 0
    expect(epoch).toBeGreaterThan(6)
    expect(epoch).toBeLessThan(14)
    first.refuses.clear()
    second.refuses.clear()
    await bench.until(async () => (await bench.placement('web'))?.state === 'Claimed', 70_000)
    expect(await bench.events('web')).toContain('Refused')
  })

  test('asks another host when one does not answer', async () => {
    const bench = await leaderBench()
    const first = await bench.host({ name: 'h1' })
    first.idle = true
    bench.leader('h1')
    await bench.machine('web')
    await bench.until(async () => (await bench.placement('web'))?.state === 'Assigned')
    await bench.host({ name: 'h2' })
    await bench.until(async () => (await bench.placement('web'))?.host === 'h2')
    expect(await bench.events('web')).toContain('NotClaimed')
  })

  test('leaves a machine to a host that says what it waits for', async () => {
    const bench = await leaderBench()
    const host = await bench.host({ name: 'h1', idle: true })
    const leader = bench.leader('h1')
    await bench.machine('web')
    await bench.until(async () => (await bench.placement('web'))?.state === 'Assigned')
    const ready = { type: 'Ready', status: 'False', reason: 'ImageNotReady', message: 'm' } as const
    const conditions = [{ ...ready, lastTransitionTime: '' }]
    const phase = 'Pending' as const
    const status = () => ({ phase, conditions })
    await bench.objects.changeStatus(virtualMachineKind, reference('web'), status)
    await bench.host({ name: 'h2' })
    await bench.clock.advance(60_000)
    expect(await bench.placement('web')).toMatchObject({ state: 'Assigned', host: 'h1', epoch: 1 })
    // The next leader knows it too.
    await leader.stop()
    bench.leader('h2')
    await bench.clock.advance(60_000)
    expect(await bench.placement('web')).toMatchObject({ state: 'Assigned', host: 'h1', epoch: 1 })
    expect(host.running.size).toBe(0)
  })

  test('places nothing on a host that is cordoned, drained, sick or silent', async () => {
    const bench = await leaderBench()
    for (const name of ['cordoned', 'drained', 'sick', 'silent']) await bench.host({ name })
    const spec = (name: string, spec: object) =>
      bench.objects.change(hostKind, { name }, host => ({
        ...host,
        spec: { ...host.spec, ...spec },
      }))
    await spec('cordoned', { schedulable: false })
    await spec('drained', { drain: true })
    const sick = { type: 'Ready', status: 'False', reason: 'x', message: '' } as const
    await bench.objects.changeStatus(hostKind, { name: 'sick' }, status => ({
      ...status,
      conditions: [{ ...sick, lastTransitionTime: '' }],
    }))
    await bench.store.transaction({
      compare: [],
      operations: [{ delete: hostLeaseKey('silent') }],
    })
    bench.leader('cordoned')
    const machine = await bench.machine('web')
    await bench.clock.advance(3_000)
    expect(await bench.placements()).toEqual([])
    const { clock, store } = bench
    const told = await explainPlacement(machine, { fenced: true }, { store, clock, facts: noFacts })
    expect(told).toMatchObject({ place: 1, queued: 1 })
    expect(told.hosts.every(({ objections }) => objections.length > 0)).toBe(true)
    await spec('cordoned', { schedulable: true })
    await bench.until(async () => (await bench.placement('web'))?.host === 'cordoned')
  })
})

describe('fencing', () => {
  test('an old leader writes nothing', async () => {
    const bench = await leaderBench()
    await bench.host({ name: 'h1', allocatable: { cpu: 1 } })
    // The old leader's assignment is held back until another leads.
    const held: (() => void)[] = []
    let hold = false
    const slow: Store = {
      ...bench.store,
      async transaction(transaction) {
        if (hold && assigns(transaction)) await new Promise<void>(resolve => held.push(resolve))
        return bench.store.transaction(transaction)
      },
      async renewLease(lease) {
        if (hold) throw unavailable
        return bench.store.renewLease(lease)
      },
    }
    const old = bench.leader('old', slow)
    await bench.until(() => old.leads())
    hold = true
    await bench.machine('a')
    await bench.until(() => held.length > 0)
    // The new leader gives the room to another, so that nothing but its fence stops the old one.
    await bench.machine('b', { priority: 1 })
    const next = bench.leader('next')
    await bench.until(() => next.leads())
    await bench.until(async () => (await bench.placement('b'))?.state === 'Claimed')
    for (const release of held) release()
    await bench.clock.advance(5_000)
    expect(await bench.placement('a')).toBeUndefined()
    expect(old.leads()).toBe(false)
  })

  test('counts what it does not know to be written until it can not be any more', async () => {
    const bench = await leaderBench()
    await bench.host({ name: 'h1', allocatable: { cpu: 1 } })
    let isFirst = true
    const late: Store = {
      ...bench.store,
      async transaction(transaction) {
        if (!assigns(transaction) || !isFirst) return bench.store.transaction(transaction)
        // It is written long after it was given up.
        isFirst = false
        bench.clock.setTimer(5_000, () => void bench.store.transaction(transaction))
        await bench.machine('b', { priority: 1 })
        throw unavailable
      },
    }
    bench.leader('h1', late)
    await bench.machine('a')
    for (let ms = 0; ms < 10_000; ms += 100) {
      await bench.clock.advance(100)
      expect((await bench.placements()).filter(takesRoom).length).toBeLessThanOrEqual(1)
    }
    expect(await bench.placement('a')).toMatchObject({ state: 'Claimed', epoch: 1 })
  })

  test('goes on when every other answer is lost', async () => {
    const bench = await leaderBench()
    await bench.host({ name: 'h1', allocatable: { cpu: 4 } })
    let count = 0
    const flaky: Store = {
      ...bench.store,
      async transaction(transaction) {
        const result = await bench.store.transaction(transaction)
        if (count++ % 2 === 0) throw unavailable
        return result
      },
    }
    bench.leader('h1', flaky)
    for (let at = 0; at < 8; at++) await bench.machine(`m${at}`)
    await bench.until(async () => {
      const claimed = (await bench.placements()).filter(({ state }) => state === 'Claimed')
      return claimed.length === 4
    }, 60_000)
    expect((await bench.placements()).filter(takesRoom)).toHaveLength(4)
    expect((await bench.placements()).every(({ epoch }) => epoch === 1)).toBe(true)
  })
})

describe('what nobody has', () => {
  test('is deleted when asked, and when its time is over', async () => {
    const bench = await leaderBench()
    bench.leader('h9')
    await bench.machine('a')
    await bench.machine('b', { ttl: '30s' })
    await bench.until(async () => (await bench.find('a'))?.status?.phase === 'Pending')
    await bench.objects.remove(virtualMachineKind, reference('a'))
    await bench.until(async () => (await bench.find('a')) === undefined)
    await bench.until(async () => (await bench.find('b')) === undefined, 40_000)
    expect(await bench.placements()).toEqual([])
    expect(await bench.events('b')).toContain('Expired')
  })

  test('goes with its record when it was refused', async () => {
    const bench = await leaderBench()
    const host = await bench.host({ name: 'h1' })
    host.refuses.add('a')
    bench.leader('h1')
    await bench.machine('a')
    await bench.until(async () => (await bench.placement('a'))?.state === 'Refused')
    await bench.objects.remove(virtualMachineKind, reference('a'))
    await bench.until(async () => (await bench.find('a')) === undefined)
    await bench.until(async () => (await bench.placements()).length === 0)
  })

  test('belongs to its host when it ran there before there were placements', async () => {
    const bench = await leaderBench()
    await bench.host({ name: 'h1', allocatable: { cpu: 1 } })
    const machine = await bench.machine('old', { cpu: 2, powerState: 'Stopped' })
    await bench.objects.changeStatus(virtualMachineKind, reference('old'), () => ({
      phase: 'Stopped' as const,
      host: 'h1',
    }))
    bench.leader('h1')
    await bench.until(async () => (await bench.placement('old'))?.state === 'Resting')
    expect((await bench.placement('old'))?.diskEpoch).toBe(1)
    expect(machine.metadata.uid).toBe((await bench.placement('old'))?.uid)
  })
})
