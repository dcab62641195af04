import type { Clock } from '../../base/clock.ts'
import { failure, isFailure } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import { hostLeaseKey, hostLeasePrefix, memberKey } from '../../cluster/fleet/keys.ts'
import type { HostLease } from '../../cluster/fleet/member.ts'
import { dropHolder } from '../../cluster/image-holders.ts'
import { forgetHost } from '../../cluster/leader/forget.ts'
import { listMembers, memberOf, removeMember } from '../../cluster/membership/members.ts'
import { createObjects } from '../../cluster/objects.ts'
import type { Store } from '../../cluster/store/store.ts'
import { hostKind } from '../../resources/host.ts'

/**
 * Why a host leaves: `drained`, it has no machines; `forced`, it gives them up, also when the fleet
 * can't be told; `removed`, the others have put it out already.
 */
export type Leaving = 'drained' | 'forced' | 'removed'

/** Which host signs off. */
export interface SignOffInit {
  name: string
  hostId: string
  how: Leaving
}

/** What signing off needs. */
export interface SignOffComponents {
  clock: Clock
  random: Random
  log: Log
}

/**
 * Takes this host, on which nothing runs any more, out of the fleet's records. May be done again
 * when it failed in the middle.
 * @throws lastHostOfFleet when no other host lives; what the store throws
 */
export async function signOff(
  { name, hostId, how }: SignOffInit,
  components: SignOffComponents & { store: Store },
): Promise<void> {
  const { store } = components
  const objects = createObjects({}, components)
  const member = (await store.get(memberKey(name))).entry
  const isOurs = member !== undefined && memberOf(member).hostId === hostId
  if (isOurs) await requireOthers(store, name)
  await endLease(store, { name, hostId })
  if (member !== undefined && !isOurs) return
  if (isOurs && how === 'forced') await forgetHost(name, { ...components, objects })
  else if (isOurs) await removeMember(store, name).catch(ignoreMissing)
  await dropHolder(name, objects)
  // Also after a removal, because this host may have told of itself once more.
  await objects.remove(hostKind, { name }).catch(ignoreMissing)
}

/** @throws lastHostOfFleet when no other host lives: with this one the store would be gone */
export async function requireOthers(store: Store, name: string): Promise<void> {
  const { entries } = await store.list(hostLeasePrefix)
  const alive = new Set(entries.map(({ key }) => key.slice(hostLeasePrefix.length)))
  const members = await listMembers(store)
  const others = members.filter(({ state, name: other }) => state === 'Approved' && other !== name)
  if (!others.some(other => alive.has(other.name))) throw failure('lastHostOfFleet', { host: name })
}

/** Only of this host: another one may have its name by now. */
async function endLease(
  store: Store,
  { name, hostId }: Pick<SignOffInit, 'name' | 'hostId'>,
): Promise<void> {
  const key = hostLeaseKey(name)
  const { entry } = await store.get(key)
  if (entry === undefined || (entry.value as unknown as HostLease).hostId !== hostId) return
  const compare = [{ key, modRevision: entry.modRevision }]
  await store.transaction({ compare, operations: [{ delete: key }] })
}

function ignoreMissing(error: unknown): void {
  if (!isFailure(error, 'notFound')) throw error
}
