import type { EtcdMember } from '../../cluster/etcd/admin.ts'
import type { MemberIdentity } from './etcd-folder.ts'

/** What one host knows of its own member. */
export interface SupervisorView {
  /** Its peer URL, by which it is found in the list. */
  peerUrl: string
  /** Whether a member was started here before. Looked at after the list was read. */
  hasData: boolean
  /** Whether etcd runs here, perhaps on files that were deleted. */
  runs: boolean
  /** Which member the data is, if that was written down. */
  identity: MemberIdentity | undefined
  /** etcd's members as the majority has them; undefined when nobody can say. */
  members: readonly EtcdMember[] | undefined
  /** The cluster of this fleet, where it is known. */
  clusterId: string | undefined
}

/**
 * What to do: `start` what has data; `begin` a member that was added and has none yet; `retire`:
 * end it and set its data aside; `withdraw`: take the member off the list, because its data is
 * lost; `warn`: only people can help; or nothing.
 */
export type SupervisorStep =
  | { kind: 'start' }
  | { kind: 'begin'; members: readonly EtcdMember[] }
  | { kind: 'retire'; why: string }
  | { kind: 'withdraw'; id: string }
  | { kind: 'warn'; why: string }
  | { kind: 'none' }

/**
 * Decides what a host does about its member of etcd. Pure.
 *
 * A member that has voted must never begin anew with an empty log under its old id: it could vote
 * twice, and what it had acknowledged would be missing from a majority. So a host that finds its
 * member on the list as started, but no data, withdraws it: as the member is silent, that loses
 * nobody's quorum, and etcd does it only if the others have one. Then it is a host like any other,
 * and the planner gives it, or a better one, a learner with a new id.
 */
export function supervise(view: SupervisorView): SupervisorStep {
  const { hasData, runs, identity, members, clusterId } = view
  if (hasData && clusterId !== undefined && (identity?.clusterId ?? clusterId) !== clusterId) {
    return { kind: 'retire', why: 'its data is of another cluster' }
  }
  // After a power cut of the whole fleet there is nobody to ask until all have started.
  if (members === undefined) return { kind: hasData ? 'start' : 'none' }
  const own = members.find(({ peerUrls }) => peerUrls.includes(view.peerUrl))
  if (own === undefined) {
    const isThere = hasData || runs
    return isThere ? { kind: 'retire', why: 'it is no member any more' } : { kind: 'none' }
  }
  if (!hasData && own.name === '') return { kind: 'begin', members }
  if (!hasData) return withdrawal(own, members)
  if (identity !== undefined && identity.memberId !== own.id) {
    return { kind: 'retire', why: 'its data is of a member that was removed' }
  }
  return { kind: 'start' }
}

/** The last voter stays, though its files were deleted: what it has in memory is all there is. */
function withdrawal(own: EtcdMember, members: readonly EtcdMember[]): SupervisorStep {
  if (members.some(({ id, isLearner }) => !isLearner && id !== own.id)) {
    return { kind: 'withdraw', id: own.id }
  }
  const why = 'the files of the only voter were deleted: make a backup before it ends'
  return { kind: 'warn', why }
}
