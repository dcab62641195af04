import type { Member, MemberAddress } from '../fleet/member.ts'

/** What peers need to know of a member; a `Member` record has it. */
export interface PeerMember extends Pick<Member, 'name' | 'peerId' | 'rack'> {
  address: Pick<MemberAddress, 'host' | 'gossipPort'>
}

/** Who may connect: the approved members, this host among them. The store's list, followed. */
export interface AllowList {
  isMember(peerId: string): boolean
  list(): readonly PeerMember[]
  /** Called after the list has changed. @returns to be called to end it */
  onChange(listener: () => void): () => void
}

/** An allow-list that is set as a whole. */
export interface SettableAllowList extends AllowList {
  /** A second member with the same name or peer id is left out. */
  set(members: readonly PeerMember[]): void
}

/** An allow-list that is kept in memory: who follows the store sets it with every change. */
export function createAllowList(members: readonly PeerMember[] = []): SettableAllowList {
  const listeners = new Set<() => void>()
  let byPeerId = indexOf(members)
  return {
    isMember: peerId => byPeerId.has(peerId),
    list: () => [...byPeerId.values()],
    onChange(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    set(next) {
      byPeerId = indexOf(next)
      for (const listener of [...listeners]) listener()
    },
  }
}

function indexOf(members: readonly PeerMember[]): Map<string, PeerMember> {
  const byPeerId = new Map<string, PeerMember>()
  const names = new Set<string>()
  for (const member of members) {
    if (byPeerId.has(member.peerId) || names.has(member.name)) continue
    names.add(member.name)
    byPeerId.set(member.peerId, member)
  }
  return byPeerId
}
