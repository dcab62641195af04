import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { createHostPlacements } from '../../cluster/fleet/host-placements.ts'
import { hostLeaseKey } from '../../cluster/fleet/keys.ts'
import { assigned, writePlacement } from '../../cluster/fleet/placement.ts'
import { createMemoryStore } from '../../cluster/store/memory.ts'
import { createReservations } from '../capacity.ts'
import { askForRoom } from './room.ts'

const amounts = (cpu: number) => ({ cpu, memoryBytes: 0, diskBytes: 0, machines: 1 })

test('a machine that waits for room holds none that the leader may give to another', async () => {
  const needs = { clock: systemClock, random: systemRandom, limits: defaultLimits, log: silentLog }
  const store = createMemoryStore(needs)
  const lease = { put: hostLeaseKey('mac-1'), value: {} }
  const { revision } = await store.transaction({ compare: [], operations: [lease] })
  const placements = createHostPlacements(
    { host: 'mac-1', leaseRevision: () => revision, onChange: () => {} },
    { ...needs, store },
  )
  onTestFinished(async () => {
    await placements.stop()
    await store.close()
  })
  const given = {
    ...{ uid: 'a', namespace: 'default', name: 'a', host: 'mac-1', request: amounts(4) },
    ...({ machine: 'linux', onHostLoss: 'Wait', at: '2026-01-01T00:00:00Z' } as const),
  }
  await writePlacement(store, undefined, assigned(undefined, given))
  await expect.poll(() => placements.of('a')?.state).toBe('Assigned')
  await placements.claim('a', 'Wait')
  const reservations = createReservations()
  reservations.adopt('a', amounts(4))

  let woken = 0
  const context = { placements, reservations, wakeHindered: () => void woken++ }
  await askForRoom('a', amounts(8), context)
  expect(placements.of('a')).toMatchObject({ state: 'Waking', request: { cpu: 8 } })
  expect(reservations.reserve('b', amounts(4), amounts(4))).toEqual([])
  expect(woken).toBe(1)
})
