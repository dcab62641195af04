import { failure, isFailure } from '../../base/errors.ts'
import type { EtcdCallOptions, EtcdConnection } from './connection.ts'
import type { Method, Methods, RpcMember } from './messages.ts'
import { isRefusal, RpcFailure } from './rpc-failure.ts'
import { writeSnapshot } from './snapshot.ts'

/** A member of etcd's cluster, as etcd's own list has it. */
export interface EtcdMember {
  /** A decimal number of 64 bits. */
  id: string
  /** Empty until the member has started for the first time. */
  name: string
  peerUrls: readonly string[]
  /** Empty until the member has started for the first time. */
  clientUrls: readonly string[]
  /** It receives everything and votes on nothing. */
  isLearner: boolean
}

/** What one member says of itself. */
export interface EtcdStatus {
  clusterId: string
  memberId: string
  /** The member that it follows; absent while it knows none: then it decides nothing. */
  leaderId?: string
  version: string
  /** Size of the database file. */
  databaseBytes: number
  /** What of it holds data; the rest is what `defragment` gives back. */
  databaseUsedBytes: number
  /** etcd's own revision, without the fleet's revisionBase. */
  revision: number
  raftTerm: number
  raftIndex: number
  /** How much of that it has worked off; far behind `raftIndex` means that it is catching up. */
  raftAppliedIndex: number
  isLearner: boolean
  /** In etcd's words, for example an alarm or that there is no leader. */
  errors: readonly string[]
}

/** Something that a member refuses writes for until it is disarmed. */
export interface EtcdAlarm {
  memberId: string
  /** NOSPACE: its quota is used up. CORRUPT: its data differs from the others'. */
  kind: 'NOSPACE' | 'CORRUPT'
}

/**
 * Commands to etcd's cluster. Every method throws `unavailable` when no endpoint answers (a change
 * that ended so may or may not have been made: look at `members` again) and `etcdRefused` for what
 * has no row of its own.
 */
export interface EtcdAdmin {
  /** All members, as the majority has them. */
  members(): Promise<EtcdMember[]>
  /**
   * Adds a member that does not vote yet.
   * @throws etcdLearnerBusy while another learner is there, etcdUnhealthy soon after a partition,
   *   etcdMemberExists when a member has this URL
   */
  addLearner(peerUrl: string): Promise<EtcdMember>
  /**
   * Makes a learner a voter.
   * @throws etcdLearnerBehind until it is in sync, etcdMemberUnknown, etcdUnhealthy
   */
  promote(id: string): Promise<void>
  /** @throws etcdMemberUnknown when it is gone already, etcdUnhealthy */
  remove(id: string): Promise<void>
  /** Asks one member, whether it has a majority or not. */
  status(endpoint: string): Promise<EtcdStatus>
  /**
   * Forgets the history before this revision of etcd's own (told revision minus revisionBase).
   * Resolves when the space can be used again; compacting what is compacted is no error.
   */
  compact(revision: number): Promise<void>
  /** Gives unused space of one member back to its disk. That member serves nothing meanwhile. */
  defragment(endpoint: string): Promise<void>
  /**
   * Writes the database of one member to a file (0600), which is there whole or not at all.
   * @returns its size; its last 32 bytes are a digest of the rest, which was verified
   */
  snapshot(endpoint: string, path: string, signal: AbortSignal): Promise<{ bytes: number }>
  alarms(): Promise<EtcdAlarm[]>
  disarm(alarm: EtcdAlarm): Promise<void>
  /** Lets another voter lead. @param endpoint of the member that leads now */
  moveLeader(endpoint: string, memberId: string): Promise<void>
}

/** A question that may be asked again. */
const reading: EtcdCallOptions = { repeatable: true, timeoutMs: 5_000 }
/** A change of members: etcd itself gives up after about 7 s. */
const changing: EtcdCallOptions = { repeatable: false, timeoutMs: 10_000 }
const compacting: EtcdCallOptions = { repeatable: true, timeoutMs: 30_000 }
const statusMs = 2_000
/** Rewrites the whole database, on a slow disk. */
const defragmentMs = 120_000

const alarmKinds = ['NONE', 'NOSPACE', 'CORRUPT']
const alarmAction = { get: 0, deactivate: 2 }

/** Commands over a connection, which stays the caller's to close. */
export function createEtcdAdmin(connection: EtcdConnection): EtcdAdmin {
  const call = async <Name extends Method>(
    method: Name,
    request: Methods[Name][0],
    options: EtcdCallOptions,
    about = '',
  ): Promise<Methods[Name][1]> => {
    try {
      return await connection.call(method, request, options)
    } catch (error) {
      throw outward(error, method, about)
    }
  }
  const callAt = async <Name extends Method>(
    endpoint: string,
    method: Name,
    request: Methods[Name][0],
    timeoutMs: number,
  ): Promise<Methods[Name][1]> => {
    try {
      return await connection.callAt(endpoint, method, request, timeoutMs)
    } catch (error) {
      throw outward(error, method, endpoint)
    }
  }

  return {
    async members() {
      // etcd 3.4 answers from what its member knows; a read that the majority agreed to comes first
      // and brings that member up to date.
      await call('KV.Range', { key: Buffer.from('\0'), countOnly: true }, reading)
      const { members } = await call('Cluster.MemberList', { linearizable: true }, reading)
      return members.map(asMember)
    },
    async addLearner(peerUrl) {
      const request = { peerUrls: [peerUrl], isLearner: true }
      const { member } = await call('Cluster.MemberAdd', request, changing, peerUrl)
      return asMember(member)
    },
    async promote(id) {
      await call('Cluster.MemberPromote', { id }, changing, id)
    },
    async remove(id) {
      await call('Cluster.MemberRemove', { id }, changing, id)
    },
    status: async endpoint => asStatus(await callAt(endpoint, 'Maintenance.Status', {}, statusMs)),
    async compact(revision) {
      try {
        await call('KV.Compact', { revision, physical: true }, compacting)
      } catch (error) {
        if (!isFailure(error, 'etcdRefused') || !isRefusal(error.cause, 'has been compacted')) {
          throw error
        }
      }
    },
    async defragment(endpoint) {
      await callAt(endpoint, 'Maintenance.Defragment', {}, defragmentMs)
    },
    async snapshot(endpoint, path, signal) {
      try {
        return await writeSnapshot(connection, { endpoint, path, signal })
      } catch (error) {
        throw outward(error, 'Maintenance.Snapshot', endpoint)
      }
    },
    async alarms() {
      const request = { action: alarmAction.get, memberId: '0', alarm: 0 }
      const { alarms } = await call('Maintenance.Alarm', request, reading)
      return alarms.flatMap(({ memberId, alarm }) => {
        const kind = alarmKinds[alarm]
        return kind === 'NOSPACE' || kind === 'CORRUPT' ? [{ memberId, kind }] : []
      })
    },
    async disarm({ memberId, kind }) {
      const alarm = alarmKinds.indexOf(kind)
      const request = { action: alarmAction.deactivate, memberId, alarm }
      await call('Maintenance.Alarm', request, { ...changing, repeatable: true })
    },
    async moveLeader(endpoint, memberId) {
      const request = { targetId: memberId }
      await callAt(endpoint, 'Maintenance.MoveLeader', request, changing.timeoutMs)
    },
  }
}

function asMember({ id, name, peerUrls, clientUrls, isLearner }: RpcMember): EtcdMember {
  return { id, name, peerUrls, clientUrls, isLearner }
}

function asStatus(response: Methods['Maintenance.Status'][1]): EtcdStatus {
  const { header, version, leader, errors, isLearner } = response
  return {
    clusterId: header.clusterId,
    memberId: header.memberId,
    ...(leader === '0' ? {} : { leaderId: leader }),
    version,
    databaseBytes: Number(response.databaseBytes),
    databaseUsedBytes: Number(response.databaseUsedBytes),
    revision: Number(header.revision),
    raftTerm: Number(response.raftTerm),
    raftIndex: Number(response.raftIndex),
    raftAppliedIndex: Number(response.raftAppliedIndex),
    isLearner,
    errors,
  }
}

/** etcd's words (3.4 to 3.6) as rows of our table. @param about the member or URL it was about */
function outward(error: unknown, method: Method, about: string): unknown {
  if (!(error instanceof RpcFailure)) return error
  const says = (words: string): boolean => isRefusal(error, words)
  const detail = error.message.replace(/^etcdserver: /, '')
  const extras = { cause: error }
  if (says('in sync with leader')) return failure('etcdLearnerBehind', { member: about }, extras)
  if (says('too many learner members')) return failure('etcdLearnerBusy', {}, extras)
  if (says('Peer URLs already exist') || says('member ID already exist')) {
    return failure('etcdMemberExists', { url: about }, extras)
  }
  if (says('member not found')) return failure('etcdMemberUnknown', { member: about }, extras)
  if (says('unhealthy cluster') || says('not enough started members')) {
    return failure('etcdUnhealthy', { detail }, extras)
  }
  return failure('etcdRefused', { method, detail }, extras)
}
