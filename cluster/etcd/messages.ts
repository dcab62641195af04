/**
 * The messages of etcd.proto as they arrive: numbers of 64 bits as decimal text, a message that
 * was not sent as null. What goes out may be numbers, and leave out what has its zero value.
 */

/** Comes with every answer. */
export interface Header {
  clusterId: string
  memberId: string
  revision: string
  raftTerm: string
}

/** One key, and what etcd knows of it. */
export interface KeyValue {
  key: Buffer
  createRevision: string
  modRevision: string
  /** 1 for a key that was just created. */
  version: string
  value: Buffer
  lease: string
}

interface Answer {
  header: Header
}

interface Nothing {
  [name: string]: never
}

/** Asks for keys from `key` up to, not including, `rangeEnd`; for one key without it. */
export interface RangeRequest {
  key: Buffer
  rangeEnd?: Buffer
  limit?: number
  revision?: number
  keysOnly?: boolean
  countOnly?: boolean
}

/** Keys that were found. */
export interface RangeResponse extends Answer {
  entries: KeyValue[]
  more: boolean
}

/** One step of a transaction. */
export type RpcOperation =
  | { range: RangeRequest }
  | { put: { key: Buffer; value: Buffer; lease?: string } }
  | { delete: { key: Buffer; rangeEnd?: Buffer } }

/** `target` 1 is the create revision, 2 the mod revision; `result` 0 is "equal". */
export type RpcCompare = { key: Buffer; result: 0 } & (
  | { target: 1; createRevision: number }
  | { target: 2; modRevision: number }
)

interface TxnRequest {
  compare: RpcCompare[]
  success: RpcOperation[]
  failure: RpcOperation[]
}

/** How a transaction ended. */
export interface TxnResponse extends Answer {
  succeeded: boolean
  responses: { range?: RangeResponse | null }[]
}

/** What a watcher says. */
export type WatchRequest =
  | {
      create: {
        key: Buffer
        rangeEnd: Buffer
        startRevision: number
        prevKv: boolean
        fragment: boolean
      }
    }
  | { cancel: { watchId: string } }

/** One change; `type` 0 is a put, 1 a delete. */
export interface RpcEvent {
  type: number
  entry: KeyValue
  previous: KeyValue | null
}

/** Changes, or how a watch fares. */
export interface WatchResponse extends Answer {
  watchId: string
  created: boolean
  canceled: boolean
  compactRevision: string
  cancelReason: string
  /** More events of this answer, perhaps of its last revision, come in the next. */
  fragment: boolean
  events: RpcEvent[]
}

interface LeaseRequest {
  id: string
}

interface LeaseKept extends Answer {
  id: string
  /** Seconds; 0 when there is no such lease. */
  ttl: string
}

/** A member as etcd lists it. */
export interface RpcMember {
  id: string
  name: string
  peerUrls: string[]
  clientUrls: string[]
  isLearner: boolean
}

interface MembersResponse extends Answer {
  members: RpcMember[]
}

/** What a member says of itself. */
export interface StatusResponse extends Answer {
  version: string
  databaseBytes: string
  leader: string
  raftIndex: string
  raftTerm: string
  raftAppliedIndex: string
  errors: string[]
  databaseUsedBytes: string
  isLearner: boolean
}

/** `alarm` 1 is NOSPACE, 2 CORRUPT. */
export interface RpcAlarm {
  memberId: string
  alarm: number
}

/** One piece of a snapshot. */
export interface SnapshotPiece {
  remainingBytes: string
  blob: Buffer
}

/** Every method with its request and answer; how it is called is in `rpc.ts`. */
export interface Methods {
  'KV.Range': [RangeRequest, RangeResponse]
  'KV.Txn': [TxnRequest, TxnResponse]
  'KV.Compact': [{ revision: number; physical: boolean }, Answer]
  'Watch.Watch': [WatchRequest, WatchResponse]
  'Lease.LeaseGrant': [{ ttl: number }, LeaseKept]
  'Lease.LeaseRevoke': [LeaseRequest, Answer]
  'Lease.LeaseKeepAlive': [LeaseRequest, LeaseKept]
  'Lease.LeaseLeases': [Nothing, Answer & { leases: LeaseRequest[] }]
  'Cluster.MemberAdd': [{ peerUrls: string[]; isLearner: boolean }, Answer & { member: RpcMember }]
  'Cluster.MemberRemove': [{ id: string }, MembersResponse]
  'Cluster.MemberPromote': [{ id: string }, MembersResponse]
  'Cluster.MemberList': [{ linearizable: boolean }, MembersResponse]
  'Maintenance.Status': [Nothing, StatusResponse]
  'Maintenance.Defragment': [Nothing, Answer]
  'Maintenance.Snapshot': [Nothing, SnapshotPiece]
  'Maintenance.Alarm': [
    { action: number; memberId: string; alarm: number },
    { header: Header | null; alarms: RpcAlarm[] },
  ]
  'Maintenance.MoveLeader': [{ targetId: string }, Answer]
}

/** The name of a method, as `Service.Method`. */
export type Method = keyof Methods
