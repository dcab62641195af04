import type { FactsView } from '../../cluster/fleet/facts.ts'
import type { Timing } from '../../cluster/fleet/timing.ts'
import type { OwnFacts } from '../../cluster/gossip/facts-message.ts'
import type { Store } from '../../cluster/store/store.ts'
import type { FleetOperations } from '../../interface/api/fleet-operations.ts'
import type { Guardian } from '../guardian/client.ts'
import type { HeldLease } from '../host-lease.ts'
import type { OwnPeerTransfers } from '../images/open-peer-transfers.ts'
import type { Recovery } from '../machine/recovery.ts'

/**
 * What the rest of the daemon stands on, which is not the same for a single host and for a host of
 * a fleet. All above it is.
 */
export interface Ground {
  /** The name of this host; in a fleet that with which it joined, whatever it is configured as. */
  host: string
  /** While there is no quorum its reads are answered from memory, as they were last. */
  store: Store
  /** What the leader decides upon: it is never old. */
  freshStore: Store
  /** RFC 3339: since when `store` answers from memory; undefined while it does not. */
  staleSince(): string | undefined
  /** Through which guests are started: it knows of the lease. */
  guardian: Guardian
  lease: HeldLease
  timing: Timing
  /** Undefined unless the fleet was restored from a backup, and hosts have yet to report. */
  recovery(): Recovery | undefined
  /** Whether hosts hold leases, and lost ones are replaced. */
  fenced: boolean
  /** Where the others reach this host; undefined for a single one. */
  address: string | undefined
  operations: FleetOperations
  /** What hosts give each other of images; undefined for a single one. */
  transfers: OwnPeerTransfers | undefined
  /** What the hosts say of themselves. */
  facts: FactsView
  /** Begins to tell the others what this host is; `measure` is called every second. */
  tellFacts(measure: () => OwnFacts): void
  /** Done by the host that leads, beside placing, until the signal is aborted. */
  lead(signal: AbortSignal): Promise<void>
  /** Throws what is wrong with it; not whether etcd can be reached, which a restart mends not. */
  checkHealth(): Promise<void>
}
