import type { FactsView } from '../cluster/fleet/facts.ts'
import type { Timing } from '../cluster/fleet/timing.ts'
import type { Store } from '../cluster/store/store.ts'
import type { FleetOperations } from '../interface/api/fleet-operations.ts'
import type { Guardian } from './guardian/client.ts'
import type { HeldLease } from './host-lease.ts'

/**
 * What the rest of the daemon stands on, which is not the same for a single host and for a host of a
 * fleet. All above it is.
 */
export interface Ground {
  store: Store
  /** Through which guests are started: it knows of the lease. */
  guardian: Guardian
  lease: HeldLease
  facts: FactsView
  timing: Timing
  /** Whether hosts hold leases, and lost ones are replaced. */
  fenced: boolean
  /** Where the others reach this host; undefined for a single one. */
  address: string | undefined
  operations: FleetOperations
  /** Throws what is wrong with it; not whether etcd can be reached, which a restart mends not. */
  checkHealth(): Promise<void>
}
