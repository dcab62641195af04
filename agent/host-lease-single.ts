import type { JsonValue } from '../base/json.ts'
import { hostLeaseKey } from '../cluster/fleet/keys.ts'
import type { HostLease } from '../cluster/fleet/member.ts'
import type { Store } from '../cluster/store/store.ts'
import type { Guardian } from './guardian/client.ts'
import type { HeldLease } from './host-lease.ts'

/**
 * The lease of a host that is alone: its key is there without one, and stays. Nobody else could
 * start its guests, so nothing is renewed, and the guardian is told of no claim and kills nobody.
 * @throws what the store throws
 */
export async function holdSingleHostLease(
  { host, hostId, bootId }: HostLease & { host: string },
  { store, guardian }: { store: Store; guardian: Guardian },
): Promise<HeldLease> {
  const key = hostLeaseKey(host)
  const value: JsonValue = { hostId, bootId }
  await store.transaction({ compare: [], operations: [{ put: key, value }] })
  const { entry } = await store.get(key)
  return {
    guardian,
    leaseRevision: () => entry?.createRevision,
    claim: () => undefined,
    problem: () => undefined,
    onChange: () => () => {},
    refresh: () => {},
    announceRestart: async () => {},
    stop: () => {},
  }
}
