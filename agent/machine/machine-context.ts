import type { Clock } from '../../base/clock.ts'
import type { CommandRunner } from '../../base/command.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import type { Registry } from '../../base/metrics.ts'
import type { Random } from '../../base/random.ts'
import type { EventRecorder } from '../../cluster/event-recorder.ts'
import type { Objects } from '../../cluster/objects.ts'
import type { Store } from '../../cluster/store/store.ts'
import type { ImageStore } from '../../images/image-store.ts'
import type { Amounts } from '../../resources/host.ts'
import type { Reservations } from '../capacity.ts'
import type { Guardian } from '../guardian/client.ts'
import type { HeldLease } from '../host-lease.ts'
import type { ImageSupply } from '../images/image-supply.ts'
import type { GuestHost } from './guest-host.ts'
import type { Recovery } from './recovery.ts'

/** What the machine controller needs. */
export interface MachineContext {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
  run: CommandRunner
  metrics: Registry
  store: Store
  objects: Objects
  events: EventRecorder
  images: ImageStore
  supply: ImageSupply
  guardian: Guardian
  host: GuestHost
  reservations: Reservations
  lease: HeldLease
  /** Undefined unless the fleet was restored, and hosts have yet to report. */
  recovery(): Recovery | undefined
  /** Whether there are other hosts, to which a machine can go that this one does not take. */
  hasPeers: boolean
  /** What guests may have of this host, by the newest sample. */
  allocatable(): Amounts
  /** Whether more than the reserve is free where guests write. */
  diskHasRoom(): boolean
  /** To be called when a machine began or ceased to use an image. */
  imageUseChanged(): void
}
