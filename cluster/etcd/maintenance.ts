import type { Log } from '../../base/log.ts'
import type { EtcdAdmin, EtcdMember, EtcdStatus } from './admin.ts'

/** A member and what it says of itself; no status: it did not answer, or follows no leader. */
export interface MemberHealth {
  member: EtcdMember
  /** How it is asked; undefined until it has started. */
  endpoint?: string
  status?: EtcdStatus
}

/** A database smaller than this is not worth a pause of its member. */
const defragmentFromBytes = 64 * 1024 * 1024
/** It is given back to the disk when less than this part of it is used. */
const usedLeast = 0.5

/**
 * Gives space back: of one member that uses little of its file, the leader's last; and of all when
 * etcd takes no writes any more because its quota is used up. etcd forgets old history by itself,
 * but never makes its file smaller. Call it again and again, only while no member is to be changed.
 */
export async function maintain(
  health: readonly MemberHealth[],
  { admin, log }: { admin: EtcdAdmin; log: Log },
): Promise<void> {
  // A member that gives space back serves nothing meanwhile: no other may be silent then.
  if (health.some(({ status }) => status === undefined)) return
  const leaderLast = [...health].sort((one, other) => Number(leads(one)) - Number(leads(other)))
  if (health.some(({ status }) => status?.errors.some(isAlarm)))
    await relieve(leaderLast, admin, log)
  const wasteful = leaderLast.find(({ status }) => status !== undefined && isWasteful(status))
  if (wasteful?.endpoint === undefined) return
  log.info({ endpoint: wasteful.endpoint }, 'a member of etcd gives space back to its disk')
  await admin.defragment(wasteful.endpoint)
}

function leads({ member, status }: MemberHealth): boolean {
  return status?.leaderId === member.id
}

function isWasteful(status: { databaseBytes: number; databaseUsedBytes: number }): boolean {
  const { databaseBytes, databaseUsedBytes } = status
  return databaseBytes > defragmentFromBytes && databaseUsedBytes < databaseBytes * usedLeast
}

function isAlarm(error: string): boolean {
  return error.includes('NOSPACE')
}

/** All history goes, and who watches lists anew: better than a fleet that decides nothing. */
async function relieve(
  members: readonly MemberHealth[],
  admin: EtcdAdmin,
  log: Log,
): Promise<void> {
  log.error({}, "etcd's quota is used up: its history is dropped to make room")
  const revisions = members.map(({ status }) => status?.revision ?? 0)
  await admin.compact(Math.max(1, Math.min(...revisions)))
  for (const { endpoint } of members) {
    if (endpoint !== undefined) await admin.defragment(endpoint)
  }
  for (const alarm of await admin.alarms()) {
    if (alarm.kind === 'NOSPACE') await admin.disarm(alarm)
  }
}
