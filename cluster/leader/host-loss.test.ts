import { describe, expect, test } from 'vitest'
import { silentLog } from '../../base/log.ts'
import { findCondition } from '../../resources/condition.ts'
import { hostKind } from '../../resources/host.ts'
import { imageKind } from '../../resources/image.ts'
import { virtualMachineKind } from '../../resources/virtual-machine.ts'
import { leaderBench } from '../../test/support/leader-bench.ts'
import { fleetKey, hostLeaseKey, hostReportKey, memberKey, placementKey } from '../fleet/keys.ts'
import { defaultTiming } from '../fleet/timing.ts'
import type { Store } from '../store/store.ts'
import { forgetHost } from './forget.ts'

const reference = (name: string) => ({ namespace: 'default', name })
const spent = defaultTiming.hostLeaseTtlMs + defaultTiming.graceMs

describe('a host that is lost', () => {
  async function prepare() {
    const bench = await leaderBench()
    const first = await bench.host({ name: 'h1' })
    bench.leader('h9')
    await bench.machine('ci', { onHostLoss: 'Replace' })
    await bench.machine('db', { onHostLoss: 'Wait' })
    await bench.until(() => first.running.size === 2)
    const second = await bench.host({ name: 'h2' })
    return { ...bench, first, second }
  }

  test('loses what may be replaced, once its guests are dead; the rest waits', async () => {
    const bench = await prepare()
    await bench.first.crash()
    const crashedMs = bench.clock.monotonicMs()
    await bench.until(async () => (await bench.placement('ci'))?.host === 'h2')
    const tookMs = bench.clock.monotonicMs() - crashedMs
    expect(tookMs).toBeGreaterThanOrEqual(spent - defaultTiming.renewalPeriodMs)
    expect(tookMs).toBeLessThan(spent + 1_000)
    await bench.until(async () => (await bench.find('db'))?.status?.phase === 'Unknown')
    expect(await bench.placement('db')).toMatchObject({ state: 'Claimed', host: 'h1', epoch: 1 })
    await bench.until(() => bench.second.running.size === 1)
    const host = await bench.objects.get(hostKind, { name: 'h1' })
    expect(findCondition(host.status?.conditions, 'Ready')).toMatchObject({ status: 'Unknown' })
    const events = await bench.events('ci')
    expect(events).toContain('HostLost')
    expect(events).toContain('Replaced')
    // It comes back: what waited for it goes on there, what was replaced does not.
    const again = await bench.host({ name: 'h1' })
    await bench.until(() => again.running.size === 1)
    await bench.until(async () => (await bench.find('db'))?.status?.phase === 'Running')
    expect((await bench.placement('ci'))?.host).toBe('h2')
  })

  test('keeps all of it when it is back in time', async () => {
    const bench = await prepare()
    await bench.first.crash()
    await bench.clock.advance(spent - 2_000)
    const again = await bench.host({ name: 'h1' })
    await bench.until(() => again.running.size === 2)
    await bench.clock.advance(10_000)
    expect(await bench.placement('ci')).toMatchObject({ host: 'h1', epoch: 1 })
  })

  test('is counted anew by a new leader', async () => {
    const bench = await prepare()
    const [leader] = [bench.leader('h8')]
    await bench.clock.advance(100)
    await bench.first.crash()
    const { entry } = await bench.store.get('fleet/leader')
    await bench.until(async () => (await bench.store.get(hostLeaseKey('h1'))).entry === undefined)
    await bench.clock.advance(defaultTiming.graceMs - 500)
    await bench.store.revokeLease(entry?.lease ?? '')
    await bench.until(async () => {
      const now = (await bench.store.get('fleet/leader')).entry
      return now !== undefined && now.createRevision !== entry?.createRevision
    })
    await bench.clock.advance(defaultTiming.graceMs - 500)
    expect((await bench.placement('ci'))?.host).toBe('h1')
    await bench.until(async () => (await bench.placement('ci'))?.host === 'h2', 2_000)
    await leader?.stop()
  })

  test('loses nothing by a write that took so long that it was back and gone again', async () => {
    const bench = await leaderBench()
    const first = await bench.host({ name: 'h1' })
    const held: (() => void)[] = []
    const slow: Store = {
      ...bench.store,
      async transaction(transaction) {
        const loses = transaction.compare.some(({ key }) => key === hostLeaseKey('h1'))
        if (loses && held.length === 0) await new Promise<void>(resolve => held.push(resolve))
        return bench.store.transaction(transaction)
      },
    }
    bench.leader('h9', slow)
    await bench.machine('ci', { onHostLoss: 'Replace' })
    await bench.until(() => first.running.size === 1)
    await first.crash()
    const placed = await bench.store.get('fleet/leader')
    await bench.until(() => held.length > 0)
    // Its lease is made anew, without a new claim, and goes: all while the write is under way.
    const back = await bench.host({ name: 'h1', idle: true })
    await back.crash()
    await bench.until(async () => (await bench.store.get(hostLeaseKey('h1'))).entry === undefined)
    held[0]?.()
    await bench.clock.advance(100)
    expect((await bench.store.get('fleet/leader')).entry).toEqual(placed.entry)
    expect((await bench.placement('ci'))?.state).toBe('Claimed')
    await bench.until(async () => (await bench.placement('ci'))?.state === 'Lost')
  })

  test('leaves what it never claimed to others at once', async () => {
    const bench = await leaderBench()
    const first = await bench.host({ name: 'h1' })
    first.idle = true
    bench.leader('h9')
    await bench.machine('db', { onHostLoss: 'Wait' })
    await bench.until(async () => (await bench.placement('db'))?.state === 'Assigned')
    await bench.host({ name: 'h2' })
    await first.crash()
    await bench.until(
      async () => (await bench.placement('db'))?.host === 'h2',
      defaultTiming.hostLeaseTtlMs + 200,
    )
  })

  test('does not run again what had ended by itself', async () => {
    const bench = await prepare()
    const ci = await bench.find('ci')
    const uid = ci?.metadata.uid ?? ''
    bench.first.idle = true
    const { entry } = await bench.store.get(placementKey(uid))
    const value = { ...(entry?.value as object), state: 'Resting' }
    await bench.store.transaction({ compare: [], operations: [{ put: placementKey(uid), value }] })
    const lastExit = {
      reason: 'GuestPoweredOff',
      message: '',
      time: '2020-01-01T00:00:00Z',
    } as const
    await bench.objects.changeStatus(virtualMachineKind, reference('ci'), status => ({
      phase: 'Stopped' as const,
      ...status,
      lastExit,
    }))
    await bench.first.crash()
    await bench.clock.advance(spent + 2_000)
    expect(await bench.placement('ci')).toMatchObject({ state: 'Resting', host: 'h1' })
    await bench.objects.remove(virtualMachineKind, reference('ci'))
    await bench.until(async () => (await bench.find('ci')) === undefined)
    expect(await bench.placement('ci')).toBeUndefined()
  })

  test('can be forgotten, not while it is in touch', async () => {
    const bench = await prepare()
    const forget = () => forgetHost('h1', { ...bench, log: silentLog })
    await bench.member('h1')
    await expect(forget()).rejects.toMatchObject({ code: 'hostInTouch' })
    await bench.first.crash()
    await bench.until(async () => (await bench.store.get(hostLeaseKey('h1'))).entry === undefined)
    const image = { apiVersion: 'macfleet.dev/v1', kind: 'Image', metadata: reference('held') }
    await bench.objects.create(imageKind, { ...image, spec: {} } as never)
    const users = ['default/db']
    const held = { phase: 'Ready' as const, holders: [{ host: 'h1', users }], users }
    await bench.objects.changeStatus(imageKind, image.metadata, () => held)
    await forget()
    // What it used can be deleted.
    const { status } = await bench.objects.get(imageKind, image.metadata)
    expect(status).toMatchObject({ holders: [], users: [] })
    expect((await bench.store.get(memberKey('h1'))).entry).toBeUndefined()
    expect(await bench.objects.find(hostKind, { name: 'h1' })).toBeUndefined()
    await bench.until(() => bench.second.running.size === 1, 1_000)
    await bench.until(async () => (await bench.find('db'))?.status?.phase === 'Failed')
    const ready = findCondition((await bench.find('db'))?.status?.conditions, 'Ready')
    expect(ready?.reason).toBe('HostForgotten')
    await bench.objects.remove(virtualMachineKind, reference('db'))
    await bench.until(async () => (await bench.find('db')) === undefined)
    expect((await bench.placement('db'))?.state).toBe('Gone')
    await expect(forget()).rejects.toMatchObject({ code: 'notFound' })
  })

  test('keeps the name of a machine that waits for it until it lets go', async () => {
    const bench = await prepare()
    await bench.first.crash()
    await bench.objects.remove(virtualMachineKind, reference('db'))
    await bench.clock.advance(spent + 5_000)
    expect((await bench.find('db'))?.metadata.deletionTimestamp).toBeDefined()
    await bench.host({ name: 'h1' })
    await bench.until(async () => (await bench.find('db')) === undefined)
    await bench.until(async () => (await bench.placement('db')) === undefined)
  })
})

test('a restored fleet decides nothing until all of its hosts have reported', async () => {
  const bench = await leaderBench()
  for (const name of ['h1', 'h2']) await bench.member(name)
  const value = { fleetId: 'f', era: 2, recoveringSince: 'x' }
  const report = (host: string, era: number) =>
    bench.store.transaction({
      compare: [],
      operations: [{ put: hostReportKey(host), value: { era } }],
    })
  await bench.store.transaction({ compare: [], operations: [{ put: fleetKey, value }] })
  await bench.host({ name: 'h1' })
  await report('h1', 2)
  await report('h2', 1)
  bench.leader('h1')
  await bench.machine('web')
  await bench.machine('gone')
  await bench.objects.remove(virtualMachineKind, reference('gone'))
  await bench.clock.advance(20_000)
  expect(await bench.placements()).toEqual([])
  expect(await bench.find('gone')).toBeDefined()
  // It lives, and has said what runs on it in the era before, but not in this one.
  await bench.host({ name: 'h2' })
  await bench.clock.advance(20_000)
  expect(await bench.placements()).toEqual([])
  await report('h2', 2)
  await bench.until(async () => (await bench.placement('web'))?.state === 'Claimed')
  await bench.until(async () => (await bench.find('gone')) === undefined)
  expect((await bench.store.get(fleetKey)).entry?.value).toEqual({ fleetId: 'f', era: 2 })
})
