import type { Log } from '../../base/log.ts'
import { hostLeasePrefix, placementPrefix } from '../../cluster/fleet/keys.ts'
import { placementOf } from '../../cluster/fleet/placement.ts'
import type { Store } from '../../cluster/store/store.ts'
import { hostKind } from '../../resources/host.ts'
import { objectKey } from '../../resources/keys.ts'

/**
 * The name of a single host. Its machines were given to it by a name: while there are any it keeps
 * that one, whatever the computer is called since. Without any it is called as it is now, and the
 * old name goes.
 */
export async function singleHostName(
  wanted: string,
  { store, log }: { store: Store; log: Log },
): Promise<string> {
  const { entries: leases } = await store.list(hostLeasePrefix)
  const others = leases
    .map(({ key }) => key.slice(hostLeasePrefix.length))
    .filter(name => name !== wanted)
  const { entries } = await store.list(placementPrefix)
  const owners = new Set(entries.map(entry => placementOf(entry).host))
  const kept = others.find(name => owners.has(name))
  if (kept !== undefined) {
    log.warn({ name: kept, wanted }, 'this host keeps its name while it has machines')
    return kept
  }
  const operations = others.flatMap(name => [
    { delete: `${hostLeasePrefix}${name}` },
    { delete: objectKey(hostKind, { name }) },
  ])
  if (operations.length > 0) await store.transaction({ compare: [], operations })
  return wanted
}
