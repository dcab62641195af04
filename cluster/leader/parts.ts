import { type VirtualMachine, virtualMachineKind } from '../../resources/virtual-machine.ts'
import { hostLeaseKey, hostLifeKey, placementKey } from '../fleet/keys.ts'
import {
  type Assignment,
  assigned,
  isAnchored,
  moved,
  type Placement,
  placementStep,
} from '../fleet/placement.ts'
import { recordOf, withoutUndefined } from '../object-record.ts'
import { requestOf } from '../scheduler/amounts.ts'
import type { Compare } from '../store/store.ts'
import type { Part } from './fenced-writes.ts'
import { type FleetView, type Known, machineKey } from './view.ts'

type Machine = Known<VirtualMachine>
type Placed = Known<Placement>

/** An assignment to a host, as a part of a transaction. */
export interface AssignmentPart extends Part {
  next: Placement
}

/** The machine is given to a host, if it and its placement are as they were seen. */
export function assignmentPart(
  machine: Machine,
  from: Placed | undefined,
  given: { host: string; at: string } & Partial<Pick<Assignment, 'request'>>,
): AssignmentPart {
  const { uid = '', namespace = '', name } = machine.value.metadata
  const { machine: profile, onHostLoss } = machine.value.spec
  const next = assigned(from?.value, {
    uid,
    namespace,
    name,
    request: requestOf(machine.value),
    machine: profile,
    onHostLoss,
    ...given,
  })
  const step = placementStep(from?.entry, next)
  const { key, createRevision } = machine.entry
  return {
    next,
    compare: [...step.compare, { key, createRevision }],
    operations: [step.operation as { put: string; value: object }],
  }
}

/**
 * A machine that its host has from before there were placements. Its disk is there, so it is
 * assigned as one that wakes up on it is, whether there is room or not.
 */
export function adoptionPart(machine: Machine, host: string, at: string): AssignmentPart {
  const part = assignmentPart(machine, undefined, { host, at })
  const next: Placement = { ...part.next, diskEpoch: part.next.epoch }
  return { ...part, next, operations: [{ put: placementKey(next.uid), value: next }] }
}

/**
 * A placement belongs to its host no more. One that was claimed is taken away only while the host's
 * lease is gone, and gone since the life that the leader saw end.
 */
export function lossPart(
  from: Placed,
  said: { at: string; reason: string; message: string },
  view: Pick<FleetView, 'life'>,
): Part {
  const { host } = from.value
  const step = placementStep(from.entry, moved(from.value, 'Lost', said))
  const fence = isAnchored(from.value) ? absenceOf(host, view) : []
  return {
    compare: [...step.compare, ...fence],
    operations: [step.operation as { put: string; value: object }],
  }
}

/** Holds while a host is without a lease, and was since the leader saw the last one go. */
export function absenceOf(host: string, view: Pick<FleetView, 'life'>): Compare[] {
  return [
    { key: hostLeaseKey(host), modRevision: 0 },
    { key: hostLifeKey(host), modRevision: view.life(host)?.modRevision ?? 0 },
  ]
}

/** The machine's status, if the machine is as it was seen. */
export function statusPart(machine: Machine, status: VirtualMachine['status']): Part {
  const { key, modRevision } = machine.entry
  const value = recordOf({ ...machine.value, status }) as object
  return { compare: [{ key, modRevision }], operations: [{ put: key, value }] }
}

/** Nobody holds anything for the machine: our finalizer goes, and with the last one the machine. */
export function releasePart(
  machine: Machine,
  placement: Placed | undefined,
  keepRecord: boolean,
): Part {
  const { key, modRevision } = machine.entry
  const { metadata } = machine.value
  const left = (metadata.finalizers ?? []).filter(one => one !== virtualMachineKind.finalizer)
  const finalizers = left.length === 0 ? undefined : left
  const object = { ...machine.value, metadata: withoutUndefined({ ...metadata, finalizers }) }
  const record = placementKey(metadata.uid ?? '')
  const recordRevision = placement?.entry.modRevision ?? 0
  const unrecord = placement !== undefined && !keepRecord
  return {
    compare: [
      { key, modRevision },
      { key: record, modRevision: recordRevision },
    ],
    operations: [
      left.length === 0 ? { delete: key } : { put: key, value: recordOf(object) as object },
      ...(unrecord ? [{ delete: record }] : []),
    ],
  }
}

/** The placement of a machine that is gone; another machine may have its name by now. */
export function unrecordPart(placement: Placed, view: Pick<FleetView, 'entry'>): Part {
  const { key, modRevision } = placement.entry
  const machine = machineKey(placement.value)
  const machineRevision = view.entry(machine)?.modRevision ?? 0
  return {
    compare: [
      { key, modRevision },
      { key: machine, modRevision: machineRevision },
    ],
    operations: [{ delete: key }],
  }
}
