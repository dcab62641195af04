import { failure } from '../../base/errors.ts'
import type { JsonValue } from '../../base/json.ts'
import { hostTrustKey, memberKey, memberPrefix, peerNameKey } from '../fleet/keys.ts'
import type { Member } from '../fleet/member.ts'
import { type Follower, type FollowPrefixComponents, followPrefix } from '../store/follow.ts'
import type { Compare, Entry, Operation, Store } from '../store/store.ts'
import type { HostIdentity } from './identity.ts'

/** The member in a store entry. Sound because only we write under this prefix. */
export function memberOf(entry: Entry): Member {
  return entry.value as unknown as Member
}

/** Every member, also those that wait for approval. */
export async function listMembers(store: Store): Promise<Member[]> {
  const { entries } = await store.list(memberPrefix)
  return entries.map(memberOf)
}

/** @throws notFound */
export async function getMember(
  store: Store,
  name: string,
): Promise<{ entry: Entry; member: Member }> {
  const known = /^[a-z0-9][-a-z0-9.]{0,252}$/.test(name)
  const { entry } = known ? await store.get(memberKey(name)) : { entry: undefined }
  if (entry === undefined) throw failure('notFound', { resource: 'host', name })
  return { entry, member: memberOf(entry) }
}

/** The part of a transaction that writes a member and says whose its peer id is. */
export function memberPuts(member: Member): Operation[] {
  return [
    { put: memberKey(member.name), value: { ...member } as unknown as JsonValue },
    { put: peerNameKey(member.peerId), value: member.name },
  ]
}

/**
 * Lets a host in that waits. One that is in already stays.
 * @throws notFound; conflict when its record changed at the same moment
 */
export async function approveMember(store: Store, name: string): Promise<Member> {
  const { entry, member } = await getMember(store, name)
  if (member.state === 'Approved') return member
  const approved: Member = { ...member, state: 'Approved' }
  const result = await store.transaction({
    compare: [unchanged(entry)],
    operations: memberPuts(approved),
  })
  if (!result.succeeded) throw failure('conflict', { resource: 'host', name })
  return approved
}

/**
 * The part of a transaction that ends a membership: from then on the host is nobody, whatever
 * certificate it shows. What ran on it is not looked at here.
 */
export function memberRemoval(entry: Entry): { compare: Compare[]; operations: Operation[] } {
  const { name, peerId } = memberOf(entry)
  return {
    compare: [unchanged(entry)],
    operations: [
      { delete: memberKey(name) },
      { delete: peerNameKey(peerId) },
      { delete: hostTrustKey(name) },
    ],
  }
}

/** Removes a member. @throws notFound, conflict */
export async function removeMember(store: Store, name: string): Promise<Member> {
  const { entry, member } = await getMember(store, name)
  const result = await store.transaction(memberRemoval(entry))
  if (!result.succeeded) throw failure('conflict', { resource: 'host', name })
  return member
}

/**
 * Writes what a host says of itself anew at its start: where it is reached and what it runs.
 * @throws notMember when it is none any more
 */
export async function updateOwnMember(
  store: Store,
  self: Pick<Member, 'name' | 'hostId' | 'address' | 'version' | 'machineId'> & { rack?: string },
): Promise<Entry> {
  for (let attempt = 0; attempt < 5; attempt++) {
    const { entry } = await store.get(memberKey(self.name))
    const member = entry === undefined ? undefined : memberOf(entry)
    if (entry === undefined || member?.hostId !== self.hostId || member.state !== 'Approved') {
      throw failure('notMember', { name: self.name, detail: 'it was removed' })
    }
    const next: Member = { ...member, ...self }
    if (JSON.stringify(sorted(next)) === JSON.stringify(sorted(member))) return entry
    const value = { ...next } as unknown as JsonValue
    await store.transaction({
      compare: [unchanged(entry)],
      operations: [{ put: entry.key, value }],
    })
  }
  throw failure('conflict', { resource: 'host', name: self.name })
}

function sorted(member: Member): unknown[] {
  const { address, ...rest } = member
  return [Object.entries(rest).sort(), Object.entries(address).sort()]
}

const unchanged = ({ key, modRevision }: Entry): Compare => ({ key, modRevision })

/** The newest known members; the allow-list of every way into this host. */
export interface MemberList {
  /** All that are known, those that wait included. */
  all(): readonly Member[]
  get(name: string): Member | undefined
  /** Whether an approved member has this peer id. */
  hasPeer(peerId: string): boolean
  /**
   * The approved member that a certificate names.
   * @throws notMember
   */
  check(identity: HostIdentity): Member
  /** Whether the store was read since the start, so that it is no list of long ago. */
  isCurrent(): boolean
  /** @returns to be called to end it */
  onChange(listener: () => void): () => void
}

/** A list that follows the store. */
export interface FollowedMemberList extends MemberList {
  /** Puts a list in place that was known before, for as long as the store has not answered. */
  follow(components: FollowPrefixComponents): { stop(): Promise<void> }
}

/** @param known the newest members that were known when the host last ran */
export function createMemberList(known: readonly Member[]): FollowedMemberList {
  const listeners = new Set<() => void>()
  let byName = new Map(known.map(member => [member.name, member]))
  let peers = peersOf(byName)
  let current = false

  const changed = (): void => {
    peers = peersOf(byName)
    for (const listener of [...listeners]) listener()
  }
  const follower: Follower = {
    onListed(entries) {
      byName = new Map(entries.map(entry => [memberOf(entry).name, memberOf(entry)]))
      current = true
      changed()
    },
    onChanged(key, entry) {
      const name = key.slice(memberPrefix.length)
      if (entry === undefined) byName.delete(name)
      else byName.set(name, memberOf(entry))
      changed()
    },
  }
  return {
    all: () => [...byName.values()],
    get: name => byName.get(name),
    hasPeer: peerId => peers.has(peerId),
    check: identity => checkMember(byName.get(identity.name), identity),
    isCurrent: () => current,
    onChange(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    follow: components => followPrefix(memberPrefix, follower, components),
  }
}

function peersOf(members: ReadonlyMap<string, Member>): Set<string> {
  const approved = [...members.values()].filter(({ state }) => state === 'Approved')
  return new Set(approved.map(({ peerId }) => peerId))
}

/** @throws notMember unless the member is approved and the one that was meant */
export function checkMember(
  member: Member | undefined,
  { name, peerId, hostId }: Pick<HostIdentity, 'name' | 'peerId' | 'hostId'>,
): Member {
  const refuse = (detail: string) => failure('notMember', { name, detail })
  if (member === undefined) throw refuse('it was removed, or never joined')
  if (member.state !== 'Approved') throw refuse('it waits for `macfleet host approve`')
  if (member.peerId !== peerId || member.hostId !== hostId) {
    throw refuse('another host has its name now')
  }
  return member
}
