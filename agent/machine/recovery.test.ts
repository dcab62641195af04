import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { createHostPlacements } from '../../cluster/fleet/host-placements.ts'
import { hostLeaseKey, hostReportKey, placementKey } from '../../cluster/fleet/keys.ts'
import type { Placement } from '../../cluster/fleet/placement.ts'
import { createObjects } from '../../cluster/objects.ts'
import { createMemoryStore } from '../../cluster/store/memory.ts'
import { guestFolder } from '../../kvm/guest-folder.ts'
import { namespaceKind } from '../../resources/namespace.ts'
import { virtualMachineKind } from '../../resources/virtual-machine.ts'
import type { HeldLease } from '../host-lease.ts'
import type { Step } from './decide.ts'
import type { GuestRecord } from './record.ts'
import { startRecoveryReport, whileRecovering } from './recovery.ts'
import { newTracked } from './tracked.ts'

const at = '2026-01-01T00:00:00Z'
const request = { cpu: 1, memoryBytes: 1, diskBytes: 0, machines: 1 }
const namespace = 'default'

test('what runs here beats the backup, and what is not here is given up', async () => {
  const needs = { clock: systemClock, random: systemRandom, limits: defaultLimits, log: silentLog }
  const store = createMemoryStore(needs)
  const objects = createObjects({}, { ...needs, store })
  const metadata = { name: namespace }
  await objects.create(namespaceKind, { apiVersion: 'v1', kind: 'Namespace', metadata })
  const create = async (name: string): Promise<string> => {
    const made = await objects.create(virtualMachineKind, {
      ...{ apiVersion: 'macfleet.dev/v1', kind: 'VirtualMachine' },
      ...{ metadata: { namespace, name }, spec: { image: 'micro' } },
    } as never)
    return made.metadata.uid ?? ''
  }
  const [moved, gone] = [await create('moved'), await create('gone')]
  const placed = (uid: string, name: string, host: string): Placement => ({
    ...{ uid, namespace, name, host, request, machine: 'linux', onHostLoss: 'Wait' },
    ...{ epoch: 3, diskEpoch: 3, state: 'Claimed', leaseRevision: 1, changedAt: at },
  })
  const put = async (key: string, value: object) =>
    (await store.transaction({ compare: [], operations: [{ put: key, value } as never] })).revision
  await put(placementKey(moved), placed(moved, 'moved', 'mac-2'))
  const beganAfter = await put(placementKey(gone), placed(gone, 'gone', 'mac-1'))
  const revision = await put(hostLeaseKey('mac-1'), {})
  const lease = { leaseRevision: () => revision } as unknown as HeldLease
  const placements = createHostPlacements(
    { host: 'mac-1', leaseRevision: () => revision, onChange: () => {} },
    { ...needs, store },
  )
  const roots = { dataRoot: '/nowhere', runRoot: '/nowhere' }
  const own = { uid: moved, namespace, name: 'moved' }
  const record = { version: 1, ...own, diskEpoch: 5, request, forwards: [], runs: 1, failures: 0 }
  const tracked = newTracked(own, guestFolder(roots, moved), record as GuestRecord)
  const report = startRecoveryReport(
    {
      host: 'mac-1',
      recovery: () => ({ era: 2, beganAfter }),
      isReady: () => true,
      tracked: () => [tracked],
      runs: uid => uid === moved,
    },
    { ...needs, placements, lease, objects },
  )
  onTestFinished(async () => {
    await report.stop()
    await placements.stop()
    await store.close()
  })
  const read = async (key: string) => (await store.get(key)).entry?.value
  await expect.poll(() => read(hostReportKey('mac-1'))).toEqual({ era: 2 })
  const taken = { host: 'mac-1', state: 'Claimed', diskEpoch: 5, leaseRevision: revision }
  expect(await read(placementKey(moved))).toMatchObject(taken)
  expect(await read(placementKey(gone))).toMatchObject({ state: 'Gone', reason: 'NotFound' })
})

test.each<[Step, Step['kind']]>([
  [{ kind: 'start' }, 'wait'],
  [{ kind: 'shutDown', intent: 'stop' }, 'wait'],
  [{ kind: 'destroy' }, 'wait'],
  [{ kind: 'claimAnew' }, 'claimAnew'],
  [{ kind: 'collect' }, 'collect'],
])('while the fleet recovers %j becomes %s', (step, kind) => {
  expect(whileRecovering(step).kind).toBe(kind)
})
