import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { hostLeaseKey } from '../../cluster/fleet/keys.ts'
import { assigned, writePlacement } from '../../cluster/fleet/placement.ts'
import { createMemoryStore } from '../../cluster/store/memory.ts'
import { hostKind } from '../../resources/host.ts'
import { objectKey } from '../../resources/keys.ts'
import { singleHostName } from './single-name.ts'

async function openStore() {
  const needs = { clock: systemClock, random: systemRandom, limits: defaultLimits, log: silentLog }
  const store = createMemoryStore(needs)
  onTestFinished(() => store.close())
  const host = objectKey(hostKind, { name: 'old' })
  await store.transaction({
    compare: [],
    operations: [
      { put: hostLeaseKey('old'), value: {} },
      { put: host, value: {} },
    ],
  })
  const nameFor = (wanted: string) => singleHostName(wanted, { store, log: silentLog })
  return { store, host, nameFor }
}

test('a host that has machines keeps the name by which it has them', async () => {
  const { store, nameFor } = await openStore()
  const given = {
    ...{ uid: 'u', namespace: 'default', name: 'vm', host: 'old', machine: 'linux' as const },
    request: { cpu: 1, memoryBytes: 1, diskBytes: 0, machines: 1 },
    onHostLoss: 'Wait' as const,
    at: '2026-01-01T00:00:00Z',
  }
  await writePlacement(store, undefined, assigned(undefined, given))
  expect(await nameFor('new')).toBe('old')
  expect((await store.get(hostLeaseKey('old'))).entry).toBeDefined()
})

test('without machines it is called as it is now, and the old name goes', async () => {
  const { store, host, nameFor } = await openStore()
  expect(await nameFor('new')).toBe('new')
  expect((await store.get(hostLeaseKey('old'))).entry).toBeUndefined()
  expect((await store.get(host)).entry).toBeUndefined()
})
