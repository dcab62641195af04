import { assert } from '../../base/errors.ts'
import type { JsonValue } from '../../base/json.ts'
import type { Amounts } from '../../resources/host.ts'
import type { VirtualMachineSpec } from '../../resources/virtual-machine.ts'
import type { Compare, Entry, Store, TransactionResult } from '../store/store.ts'
import { placementKey } from './keys.ts'

/**
 * Where a machine is on its way onto a host. `Assigned`: the leader gave it to the host, which did
 * not take it yet. `Claimed`: the host has it, and it alone may run it. `Refused`: the host can't.
 * `Resting`: its guest does not run and needs no room; its disk stays where it is. `Waking`: the
 * host asks for room to start it again. `Lost`: it belongs to no host any more and may be given to
 * another. `Gone`: its host was forgotten, and with it the disk; it is kept so that the host,
 * should it come back, knows.
 */
export type PlacementState =
  | 'Assigned'
  | 'Claimed'
  | 'Refused'
  | 'Resting'
  | 'Waking'
  | 'Lost'
  | 'Gone'

/**
 * The one record that says which host has a machine (`fleet/placements/UID`). It comes to be when
 * the machine is first given to a host, and goes after the machine did. Every change is a
 * transaction on its revision, so of two that decide at once one wins and the other learns of it.
 */
export interface Placement {
  uid: string
  namespace: string
  name: string
  /** Grows with every assignment. A claim, a refusal and a replacement all compare it. */
  epoch: number
  host: string
  state: PlacementState
  /** The create revision of the host's lease key under which it was claimed. */
  leaseRevision?: number
  /** The epoch in which its disk came to be on the host; absent while there is none. */
  diskEpoch?: number
  /** What it was promised. */
  request: Amounts
  machine: VirtualMachineSpec['machine']
  /** As it was when the host claimed it: what the guardian goes by. */
  onHostLoss: VirtualMachineSpec['onHostLoss']
  /** Why it was refused or lost: a word and a sentence. */
  reason?: string
  message?: string
  /** RFC 3339. */
  changedAt: string
}

/** What may follow what; whatever is not here is a mistake of ours. */
const successors: Record<PlacementState | 'Absent', readonly PlacementState[]> = {
  Absent: ['Assigned'],
  Assigned: ['Claimed', 'Refused', 'Lost', 'Resting', 'Waking', 'Gone'],
  // Claimed again: under a new lease of the same host, before every start.
  // Refused: before its guest ever ran.
  Claimed: ['Claimed', 'Refused', 'Resting', 'Waking', 'Lost', 'Gone'],
  Refused: ['Assigned', 'Resting', 'Lost', 'Gone'],
  Resting: ['Waking', 'Lost', 'Gone'],
  // Waking again: what it wants was changed while it waited.
  Waking: ['Waking', 'Assigned', 'Resting', 'Lost', 'Gone'],
  Lost: ['Assigned'],
  Gone: [],
}

/** Whether a placement counts against the room of its host. */
export function takesRoom({ state }: Placement): boolean {
  return state === 'Assigned' || state === 'Claimed'
}

/** Whether the leader has to find a place for it (again). */
export function wantsPlace({ state }: Placement): boolean {
  return state === 'Refused' || state === 'Waking' || state === 'Lost'
}

/** Whether it may only go back to the host that it names, because its disk is there. */
export function isAnchored({ diskEpoch }: Placement): boolean {
  return diskEpoch !== undefined
}

/** A machine is given to a host. */
export interface Assignment {
  uid: string
  namespace: string
  name: string
  host: string
  request: Amounts
  machine: VirtualMachineSpec['machine']
  onHostLoss: VirtualMachineSpec['onHostLoss']
  /** RFC 3339. */
  at: string
}

/** The leader gives a machine to a host; an anchored one keeps its disk, so only to its own. */
export function assigned(previous: Placement | undefined, given: Assignment): Placement {
  const { at: changedAt, ...machine } = given
  const diskEpoch = previous?.diskEpoch
  assert(diskEpoch === undefined || previous?.host === given.host, 'a disk does not move')
  const epoch = (previous?.epoch ?? 0) + 1
  const kept = diskEpoch === undefined ? {} : { diskEpoch }
  return { ...machine, ...kept, epoch, state: 'Assigned', changedAt }
}

/** The host takes it, under the lease that it holds now. */
export function claimed(
  current: Placement,
  {
    leaseRevision,
    onHostLoss,
    at,
  }: { leaseRevision: number } & Pick<Assignment, 'at' | 'onHostLoss'>,
): Placement {
  const { reason: _, message: __, ...rest } = current
  const diskEpoch = current.diskEpoch ?? current.epoch
  return { ...rest, state: 'Claimed', leaseRevision, onHostLoss, diskEpoch, changedAt: at }
}

/** Any other step: the host refuses it, rests it or wants to wake it, or it is lost. */
export function moved(
  current: Placement,
  state: Exclude<PlacementState, 'Assigned' | 'Claimed'>,
  given: { at: string; request?: Amounts; reason?: string; message?: string },
): Placement {
  const { reason: _, message: __, leaseRevision, diskEpoch, ...rest } = current
  const { at: changedAt, ...said } = given
  // A machine without a host has no disk.
  const kept =
    state === 'Lost' || state === 'Refused' || diskEpoch === undefined ? {} : { diskEpoch }
  const lease = state === 'Gone' && leaseRevision !== undefined ? { leaseRevision } : {}
  return { ...rest, ...kept, ...lease, ...said, state, changedAt }
}

/** The placement in a store entry. Sound because only we write under this prefix. */
export function placementOf(entry: Entry): Placement {
  return entry.value as unknown as Placement
}

/** A step of one machine, as a part of a transaction. */
export interface PlacementStep {
  compare: Compare[]
  operation: { put: string; value: JsonValue }
}

/**
 * The transaction's part that changes a placement, bound to the revision of what it changes.
 * @param from the entry that `next` was made from; undefined when there is none
 */
export function placementStep(from: Entry | undefined, next: Placement): PlacementStep {
  const before = from === undefined ? 'Absent' : placementOf(from).state
  assert(successors[before].includes(next.state), `no placement goes ${before} to ${next.state}`)
  const key = placementKey(next.uid)
  const value = { ...next } as unknown as JsonValue
  return {
    compare: [{ key, modRevision: from?.modRevision ?? 0 }],
    operation: { put: key, value },
  }
}

/**
 * Writes one step, unless the placement, or what else is compared, has changed.
 * @returns the store's answer; when it was not written, `current` begins with the placement
 */
export async function writePlacement(
  store: Store,
  from: Entry | undefined,
  next: Placement,
  also: readonly Compare[] = [],
): Promise<TransactionResult> {
  const { compare, operation } = placementStep(from, next)
  return await store.transaction({ compare: [...compare, ...also], operations: [operation] })
}
