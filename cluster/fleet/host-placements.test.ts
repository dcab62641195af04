import { once } from 'node:events'
import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { createMemoryStore } from '../store/memory.ts'
import type { Store } from '../store/store.ts'
import { createHostPlacements } from './host-placements.ts'
import { hostLeaseKey, placementKey } from './keys.ts'
import { assigned, moved, type Placement, placementOf, writePlacement } from './placement.ts'

const at = '2026-01-01T00:00:00Z'
const request = { cpu: 1, memoryBytes: 1, diskBytes: 0, machines: 1 }
const given = (uid: string, host: string) => ({
  ...{ uid, namespace: 'default', name: uid, host, request, at },
  machine: 'linux' as const,
  onHostLoss: 'Replace' as const,
})

/** A store with the lease of mac-1, and what mac-1 makes of it. */
async function openHost() {
  const needs = { clock: systemClock, random: systemRandom, limits: defaultLimits, log: silentLog }
  const store = createMemoryStore(needs)
  const heard: string[] = []
  const lease = { revision: 0 as number | undefined }
  const putLease = async () => {
    const key = hostLeaseKey('mac-1')
    await store.transaction({ compare: [], operations: [{ delete: key }] })
    const { revision } = await store.transaction({
      compare: [],
      operations: [{ put: key, value: {} }],
    })
    lease.revision = revision
  }
  await putLease()
  const placements = createHostPlacements(
    { host: 'mac-1', leaseRevision: () => lease.revision, onChange: uid => heard.push(uid) },
    { ...needs, store },
  )
  onTestFinished(async () => {
    await placements.stop()
    await store.close()
  })
  const read = async (uid: string): Promise<Placement | undefined> => {
    const { entry } = await store.get(placementKey(uid))
    return entry === undefined ? undefined : placementOf(entry)
  }
  /** What the leader does. */
  const assign = async (uid: string, host = 'mac-1') => {
    const { entry } = await store.get(placementKey(uid))
    const before = entry && placementOf(entry)
    await writePlacement(store, entry, assigned(before, given(uid, host)))
    await expect.poll(() => placements.of(uid)?.epoch).toBe((before?.epoch ?? 0) + 1)
  }
  const lose = async (uid: string) => {
    const { entry } = await store.get(placementKey(uid))
    if (entry !== undefined)
      await writePlacement(store, entry, moved(placementOf(entry), 'Lost', { at }))
  }
  return { store, placements, heard, lease, putLease, read, assign, lose }
}

test('a machine is claimed, rests, wakes and is given room again, with its disk', async () => {
  const { placements, assign, read, heard } = await openHost()
  await assign('a')
  expect(heard).toContain('a')
  expect(await placements.claim('a', 'Wait')).toMatchObject({ state: 'Claimed', diskEpoch: 1 })
  expect(await read('a')).toMatchObject({ onHostLoss: 'Wait', leaseRevision: expect.any(Number) })
  expect(await placements.rest('a')).toBe(true)
  expect(await placements.rest('a')).toBe(true)
  expect(await placements.wake('a', { ...request, cpu: 2 })).toBe(true)
  expect(await read('a')).toMatchObject({ state: 'Waking', request: { cpu: 2 }, diskEpoch: 1 })
  await assign('a')
  expect(await placements.claim('a', 'Replace')).toMatchObject({ epoch: 2, diskEpoch: 1 })
})

test('nothing is claimed under a lease that has ended', async () => {
  const { placements, assign, read, lease, putLease } = await openHost()
  await assign('a')
  const old = lease.revision
  await putLease()
  lease.revision = old
  await expect(placements.claim('a', 'Wait')).rejects.toMatchObject({ code: 'placementChanged' })
  expect(await read('a')).toMatchObject({ state: 'Assigned' })
  lease.revision = undefined
  await expect(placements.claim('a', 'Wait')).rejects.toMatchObject({ code: 'hostLeaseMissing' })
})

test('what was taken away meanwhile is not claimed, whatever is known here', async () => {
  const { placements, assign, lose, read } = await openHost()
  await assign('a')
  const losing = lose('a')
  const claiming = placements.claim('a', 'Replace').then(
    () => 'claimed',
    () => 'refused',
  )
  await losing
  const state = (await read('a'))?.state
  expect([await claiming, state]).toEqual(
    state === 'Lost' ? ['refused', 'Lost'] : ['claimed', state],
  )
  await expect.poll(() => placements.of('a')?.state).toBe(state)
})

test("another host's machines are seen and not touched", async () => {
  const { placements, assign, read } = await openHost()
  await assign('b', 'mac-2')
  expect(placements.ours()).toEqual([])
  expect(await placements.refuse('b', { reason: 'x', message: 'y' })).toBe(false)
  await expect(placements.claim('b', 'Wait')).rejects.toMatchObject({ code: 'placementChanged' })
  await placements.remove('b')
  expect(await read('b')).toMatchObject({ state: 'Assigned', host: 'mac-2' })
})

test('a machine that is given up has no disk any more', async () => {
  const { placements, assign, read } = await openHost()
  await assign('a')
  await placements.claim('a', 'Replace')
  expect(await placements.surrender('a', { reason: 'Drained', message: 'm' })).toBe(true)
  const lost = await read('a')
  expect(lost).toMatchObject({ state: 'Lost', reason: 'Drained' })
  expect(lost?.diskEpoch).toBeUndefined()
})

test('the record of a machine that is gone goes too', async () => {
  const { placements, assign, read } = await openHost()
  await assign('a')
  await placements.claim('a', 'Wait')
  await placements.remove('a')
  expect(await read('a')).toBeUndefined()
  expect(placements.of('a')).toBeUndefined()
})

test('a machine that waits for room and wants other room by now asks anew', async () => {
  const { placements, assign, read } = await openHost()
  await assign('a')
  await placements.claim('a', 'Wait')
  expect(await placements.wake('a', { ...request, cpu: 64 })).toBe(true)
  expect(await placements.wake('a', { ...request, cpu: 2 })).toBe(true)
  expect(await read('a')).toMatchObject({ state: 'Waking', request: { cpu: 2 }, diskEpoch: 1 })
})

test('an old list takes nothing away that is known from later', async () => {
  const needs = { clock: systemClock, random: systemRandom, limits: defaultLimits, log: silentLog }
  const store = createMemoryStore(needs)
  const early = await store.list('fleet/')
  const lists = [early]
  let watches = 0
  const old: Store = {
    ...store,
    list: async (prefix, options) => lists.pop() ?? store.list(prefix, options),
    async *watch(prefix, options) {
      if (++watches > 1) return await once(options.signal ?? new EventTarget(), 'abort')
      for await (const batch of store.watch(prefix, options)) {
        yield batch
        // Told of the placement, it breaks, and all that answers is a memory of before.
        lists.push(early)
        throw new Error('the store is away')
      }
    },
  }
  const placements = createHostPlacements(
    { host: 'mac-1', leaseRevision: () => 1, onChange: () => {} },
    { ...needs, store: old },
  )
  onTestFinished(async () => {
    await placements.stop()
    await store.close()
  })
  await expect.poll(() => placements.isKnown()).toBe(true)
  await writePlacement(store, undefined, assigned(undefined, given('a', 'mac-1')))
  await expect.poll(() => placements.of('a')?.epoch).toBe(1)
  // Listed again from before, it is known still.
  await expect.poll(() => watches).toBe(2)
  expect(placements.of('a')?.epoch).toBe(1)
})

test('a guest that runs here beats what a backup says, unless it was claimed since', async () => {
  const { placements, assign, read } = await openHost()
  const placement = (diskEpoch: number): Placement => ({
    ...given('vm-1', 'mac-1'),
    ...{ epoch: diskEpoch, diskEpoch, state: 'Claimed', changedAt: at },
  })
  await assign('vm-1', 'mac-2')
  expect(await placements.takeOver(placement(7), 1_000)).toBe(true)
  expect(await read('vm-1')).toMatchObject({ host: 'mac-1', state: 'Claimed', diskEpoch: 7 })
  const claimedBy = (await read('vm-1'))?.leaseRevision ?? 0
  expect(await placements.takeOver(placement(8), claimedBy - 1)).toBe(false)
  expect(await read('vm-1')).toMatchObject({ diskEpoch: 7 })
})

test('a machine of a backup that is nowhere is given up, or placed anew', async () => {
  const { placements, assign, read } = await openHost()
  const why = { reason: 'NotFound', message: 'm' }
  for (const uid of ['vm-1', 'vm-2']) await assign(uid)
  await placements.claim('vm-1', 'Wait')
  await placements.claim('vm-2', 'Replace')
  for (const uid of ['vm-1', 'vm-2']) expect(await placements.miss(uid, why)).toBe(true)
  expect(await read('vm-1')).toMatchObject({ state: 'Gone', ...why })
  expect(await read('vm-2')).toMatchObject({ state: 'Lost', ...why })
})
