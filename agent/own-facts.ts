import type { Limits } from '../base/limits.ts'
import type { OwnFacts } from '../cluster/gossip/facts-message.ts'
import type { ImageStore } from '../images/image-store.ts'
import { allocatableOf, capacityOf, type Reservations } from './capacity.ts'
import type { Config } from './config.ts'
import { ownVersion } from './host-controller.ts'
import type { GuestHost } from './machine/guest-host.ts'
import type { Monitor } from './monitor.ts'

/** Where the facts are found. */
export interface OwnFactsSources {
  limits: Limits
  config: Config
  monitor: Monitor
  images: ImageStore
  host: GuestHost
  reservations: Reservations
}

const version = ownVersion()

/** What this host says of itself by gossip; asked for every second, so nothing here waits. */
export function ownFacts(sources: OwnFactsSources): OwnFacts {
  const { limits, config, monitor, images, host, reservations } = sources
  const sample = monitor.current()
  return {
    version,
    ready: host.qemu !== undefined,
    allocatable: allocatableOf(capacityOf(sample, limits.machinesPerHost), config),
    reserved: reservations.total(),
    cpuFraction: sample.cpuFraction,
    load1: sample.load1,
    memoryUsedBytes: sample.memoryUsedBytes,
    diskFreeBytes: sample.diskFreeBytes,
    imageDigests: images.list().map(({ digest }) => digest),
  }
}
