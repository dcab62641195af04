import { readFileSync } from 'node:fs'
import { arch, cpus, release } from 'node:os'
import { type Clock, sleep, timestamp } from '../base/clock.ts'
import type { CommandRunner } from '../base/command.ts'
import { messageOf } from '../base/errors.ts'
import type { Limits } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Objects } from '../cluster/objects.ts'
import type { ImageStore } from '../images/image-store.ts'
import { missingContainment } from '../kvm/containment.ts'
import { withCondition } from '../resources/condition.ts'
import { type Host, hostKind } from '../resources/host.ts'
import { allocatableOf, capacityOf, type Reservations } from './capacity.ts'
import type { Config } from './config.ts'
import { lookAgain } from './guest-host.ts'
import type { GuestHost } from './machine/guest-host.ts'
import type { Monitor, Sample } from './monitor.ts'

/** What the host controller needs. */
export interface HostControllerComponents {
  clock: Clock
  log: Log
  run: CommandRunner
  limits: Limits
  config: Config
  objects: Objects
  monitor: Monitor
  images: ImageStore
  host: GuestHost
  reservations: Reservations
  /** Where the other hosts reach it, in a fleet. */
  address?: string | undefined
}

/** Tells in the store what this host is and how it is. */
export interface HostController {
  stop(): Promise<void>
}

/** Between looks at whether there is something new to tell. */
const intervalMs = 5000

/** The version of macfleet, from package.json. */
export function ownVersion(): string {
  const path = new URL('../package.json', import.meta.url)
  const parsed = JSON.parse(readFileSync(path, 'utf8')) as { version: string }
  return parsed.version
}

/** Creates the Host object when there is none, and keeps its status true. */
export async function startHostController(
  components: HostControllerComponents,
): Promise<HostController> {
  const { clock, log, config, objects, host } = components
  const stopping = new AbortController()
  let isThere = false
  const tell = async (): Promise<void> => {
    if (!isThere) await ensureHost(objects, host.name, config)
    isThere = true
    const reference = { name: host.name }
    const told = await objects.changeStatus(hostKind, reference, status =>
      hostStatus(status, components),
    )
    // Removed from the fleet and let in again, for example.
    isThere = told !== undefined
  }
  /** A host has to start while the store is away: it has guests to look after. */
  const tryToTell = () =>
    tell().catch(error => {
      log.warn({ error: messageOf(error) }, "the host's status could not be told")
    })
  await tryToTell()

  const run = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      await sleep(clock, intervalMs, stopping.signal).catch(() => {})
      if (stopping.signal.aborted) return
      const found = await lookAgain(host, components.run)
      if (found) log.info({ qemu: host.qemu?.version }, 'what guests need was installed')
      await tryToTell()
    }
  }
  const running = run()
  return {
    async stop() {
      stopping.abort()
      await running
    },
  }
}

/** Its labels and taints are those of its configuration; labels given by hand stay beside them. */
async function ensureHost(objects: Objects, name: string, config: Config): Promise<void> {
  const { rack } = config.fleet
  const labels = { ...(rack !== undefined && { rack }), ...config.labels }
  const given = {
    ...(config.taints !== undefined && { taints: config.taints }),
    ...(config.macosGuests !== undefined && { macosGuests: config.macosGuests }),
  }
  const current = await objects.find(hostKind, { name })
  if (current === undefined) {
    const metadata = { name, labels }
    const spec = { schedulable: true, ...given }
    await objects.create(hostKind, { apiVersion: 'macfleet.dev/v1', kind: 'Host', metadata, spec })
    return
  }
  await objects.change(hostKind, { name }, host => ({
    ...host,
    metadata: { ...host.metadata, labels: { ...host.metadata.labels, ...labels } },
    spec: { ...host.spec, ...given },
  }))
}

type HostStatus = NonNullable<Host['status']>

/** The status as it is now. Usage that hardly changed is left as told, so that little is written. */
function hostStatus(
  told: HostStatus | undefined,
  components: HostControllerComponents,
): HostStatus {
  const { clock, limits, config, monitor, images, host, reservations } = components
  const sample = monitor.current()
  const capacity = capacityOf(sample, limits.machinesPerHost)
  const usage = usageOf(sample)
  const ready = host.qemu !== undefined
  return {
    capacity,
    allocatable: allocatableOf(capacity, config),
    reserved: reservations.total(),
    usage: told?.usage !== undefined && isClose(told.usage, usage) ? told.usage : usage,
    accelerator: host.accelerator.accelerator,
    acceleratorReason: host.accelerator.reason,
    version: ownVersion(),
    ...(host.qemu && { qemuVersion: host.qemu.version }),
    kernel: release(),
    arch: arch() === 'arm64' ? 'aarch64' : 'x86_64',
    cpuModel: cpus()[0]?.model ?? '',
    ...(components.address !== undefined && { address: components.address }),
    images: images.list().map(image => image.digest),
    missingContainment: missingContainment(host.containment),
    conditions: withCondition(
      told?.conditions ?? [],
      {
        type: 'Ready',
        status: ready ? 'True' : 'False',
        reason: ready ? 'Ready' : 'QemuMissing',
        message: ready ? 'The host takes machines' : (host.qemuProblem ?? 'QEMU was not found'),
      },
      timestamp(clock),
    ),
  }
}

type Usage = NonNullable<HostStatus['usage']>

function usageOf(sample: Sample): Usage {
  return {
    cpuFraction: Number(sample.cpuFraction.toFixed(3)),
    memoryBytes: sample.memoryUsedBytes,
    diskBytes: sample.diskTotalBytes - sample.diskFreeBytes,
    load1: Number(sample.load1.toFixed(2)),
  }
}

/** Within what nobody would act upon: 3 % of a core's time, 32 MiB, a tenth of load. */
function isClose(told: Usage, now: Usage): boolean {
  const bytes = 32 * 2 ** 20
  return (
    Math.abs(told.cpuFraction - now.cpuFraction) < 0.03 &&
    Math.abs(told.memoryBytes - now.memoryBytes) < bytes &&
    Math.abs(told.diskBytes - now.diskBytes) < bytes &&
    Math.abs(told.load1 - now.load1) < 0.1
  )
}
