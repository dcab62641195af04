import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { runCommand } from '../base/command.ts'
import { defaultLimits } from '../base/limits.ts'
import { silentLog } from '../base/log.ts'
import { createManualClock } from '../base/manual-clock.ts'
import { createMetrics } from '../base/metrics.ts'
import { systemRandom } from '../base/random.ts'
import { createObjects } from '../cluster/objects.ts'
import { createMemoryStore } from '../cluster/store/memory.ts'
import { findCondition } from '../resources/condition.ts'
import { type Host, hostKind } from '../resources/host.ts'
import { openTestStore } from '../test/support/images.ts'
import { temporaryFolder } from '../test/support/temporary-folder.ts'
import { createReservations } from './capacity.ts'
import { completeConfig } from './config.ts'
import { startHostController } from './host-controller.ts'
import type { GuestHost } from './machine/guest-host.ts'
import { startMonitor } from './monitor.ts'

/** A host without QEMU, as a daemon finds it that starts before QEMU was installed. */
async function openHost() {
  const folder = temporaryFolder()
  const clock = createManualClock()
  const shared = { clock, random: systemRandom, limits: defaultLimits, log: silentLog }
  const store = createMemoryStore(shared)
  const objects = createObjects({}, { ...shared, store })
  const config = completeConfig({ dataDir: folder, hostName: 'mac-1', fleet: { rack: 'r1' } })
  const monitor = await startMonitor(
    { folder, intervalMs: 1000 },
    { ...shared, metrics: createMetrics() },
  )
  const host: GuestHost = {
    name: 'mac-1',
    roots: { dataRoot: join(folder, 'guests'), runRoot: join(folder, 'run') },
    qemu: undefined,
    qemuProblem: 'it is not installed',
    accelerator: { accelerator: 'tcg', reason: 'there is no KVM' },
    kvmGroupId: undefined,
    uefi: undefined,
    cpuVendor: undefined,
    containment: { root: false, systemd: false, firewall: false },
    users: undefined,
    ports: { address: '127.0.0.1', first: 20_000, last: 20_001 },
    accessKey: undefined,
  }
  const images = await openTestStore(join(folder, 'images'))
  const reservations = createReservations()
  const components = { ...shared, run: runCommand, config, objects, monitor, images, host }
  const start = () => startHostController({ ...components, reservations })
  const get = async (): Promise<Host> => await objects.get(hostKind, { name: 'mac-1' })
  onTestFinished(async () => {
    monitor.stop()
    await store.close()
  })
  return { start, get, objects, reservations, clock, host }
}

const soon = { timeout: 5000 }

test('a host says what it has, what it gave, and why it is not ready', async () => {
  const { start, get, reservations, clock } = await openHost()
  const controller = await start()
  const host = await get()
  expect(host.metadata.labels).toEqual({ rack: 'r1' })
  expect(host.status).toMatchObject({
    capacity: { machines: defaultLimits.machinesPerHost },
    reserved: { machines: 0 },
    accelerator: 'tcg',
  })
  expect(findCondition(host.status?.conditions, 'Ready')).toMatchObject({
    status: 'False',
    reason: 'QemuMissing',
    message: 'it is not installed',
  })
  reservations.adopt('a', { cpu: 2, memoryBytes: 4096, diskBytes: 0, machines: 1 })
  await clock.advance(5000)
  await expect.poll(async () => (await get()).status?.reserved?.machines, soon).toBe(1)
  await controller.stop()
})

test('QEMU that is installed later is found', async () => {
  const { start, get, clock, host } = await openHost()
  const controller = await start()
  await clock.advance(5000)
  await expect
    .poll(async () => findCondition((await get()).status?.conditions, 'Ready')?.status, soon)
    .toBe('True')
  expect(host.qemu?.version).toMatch(/^\d+\./)
  await controller.stop()
})

test('what an operator set stays when the daemon starts again', async () => {
  const { start, get, objects } = await openHost()
  await (await start()).stop()
  await objects.change(hostKind, { name: 'mac-1' }, host => ({
    ...host,
    metadata: { ...host.metadata, labels: { ...host.metadata.labels, disk: 'ssd' } },
    spec: { ...host.spec, schedulable: false },
  }))
  await (await start()).stop()
  const host = await get()
  expect(host.spec.schedulable).toBe(false)
  expect(host.metadata.labels).toEqual({ rack: 'r1', disk: 'ssd' })
})
