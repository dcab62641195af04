import type { Clock } from '../../base/clock.ts'
import type { Log } from '../../base/log.ts'
import type { PlannerHost } from '../../cluster/etcd/planner.ts'
import { hostLeasePrefix, memberPrefix } from '../../cluster/fleet/keys.ts'
import type { Member } from '../../cluster/fleet/member.ts'
import { type Follower, followPrefix } from '../../cluster/store/follow.ts'
import type { Store } from '../../cluster/store/store.ts'
import { type Host, hostKind } from '../../resources/host.ts'
import { objectKey } from '../../resources/keys.ts'
import { peerUrlOf } from '../etcd/etcd-command.ts'

/** The hosts that may have a member of etcd, from what the store says of them. */
export interface FollowedHosts {
  list(): PlannerHost[]
  stop(): Promise<void>
}

/**
 * Follows members, leases and cordons; resolves when all were read once, or the signal is aborted.
 */
export async function plannerHosts(
  components: { store: Store; clock: Clock; log: Log },
  signal: AbortSignal,
): Promise<FollowedHosts> {
  const members = new Map<string, Member>()
  const leases = new Set<string>()
  const cordoned = new Set<string>()
  const hostPrefix = objectKey(hostKind, { name: '' })
  const follow = (
    prefix: string,
    set: (name: string, value: unknown) => void,
    remove: (name: string) => void,
    clear: () => void,
  ) => {
    const listed = Promise.withResolvers<void>()
    const follower: Follower = {
      onListed(entries) {
        clear()
        for (const { key, value } of entries) set(key.slice(prefix.length), value)
        listed.resolve()
      },
      onChanged(key, entry) {
        const name = key.slice(prefix.length)
        if (entry === undefined) remove(name)
        else set(name, entry.value)
      },
    }
    return { following: followPrefix(prefix, follower, components), listed: listed.promise }
  }
  const follows = [
    follow(
      memberPrefix,
      (name, value) => members.set(name, value as Member),
      name => members.delete(name),
      () => members.clear(),
    ),
    follow(
      hostLeasePrefix,
      name => leases.add(name),
      name => leases.delete(name),
      () => leases.clear(),
    ),
    follow(
      hostPrefix,
      (name, value) => {
        if ((value as Host).spec.schedulable) cordoned.delete(name)
        else cordoned.add(name)
      },
      name => cordoned.delete(name),
      () => cordoned.clear(),
    ),
  ]
  const aborted = new Promise<void>(resolve => {
    if (signal.aborted) resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
  await Promise.race([Promise.all(follows.map(({ listed }) => listed)), aborted])
  return {
    list: () =>
      [...members.values()]
        .filter(({ state }) => state === 'Approved')
        .map(({ name, rack, address }) => ({
          name,
          ...(rack !== undefined && { rack }),
          alive: leases.has(name),
          cordoned: cordoned.has(name),
          peerUrl: peerUrlOf(address),
        })),
    async stop() {
      await Promise.all(follows.map(({ following }) => following.stop()))
    },
  }
}
