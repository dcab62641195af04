import { isAnchored, type Placement, wantsPlace } from '../../cluster/fleet/placement.ts'
import { requestOf } from '../../cluster/scheduler/amounts.ts'
import { findCondition } from '../../resources/condition.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import type { Books } from './books.ts'
import type { Guests } from './guests.ts'
import type { SimulatedHost } from './host.ts'

/** What is looked at. */
export interface Fleet {
  books: Books
  guests: Guests
  hosts: readonly SimulatedHost[]
}

/** What is not yet as it should be. */
export interface Unsettled {
  uid: string
  text: string
}

/** Looks whether every machine is as it is wanted, and nothing is left of those that are gone. */
export function findUnsettled(fleet: Fleet): Unsettled[] {
  const { books } = fleet
  const machines = new Map([...books.machines.values()].map(one => [one.metadata.uid ?? '', one]))
  const found: Unsettled[] = []
  for (const [uid, machine] of machines) {
    const text = machineProblem(uid, machine, fleet)
    if (text !== undefined) found.push({ uid, text: `${machine.metadata.name}: ${text}` })
  }
  for (const [uid, { state, host }] of books.placements) {
    if (machines.has(uid) || state === 'Gone') continue
    found.push({ uid, text: `a placement without machine, ${state} on ${host}` })
  }
  for (const { uid, host } of fleet.guests.all()) {
    if (books.placements.get(uid)?.host !== host) {
      found.push({ uid, text: `a guest on ${host}, which does not have the machine` })
    }
  }
  for (const host of fleet.hosts.filter(({ isOn }) => isOn)) {
    for (const uid of host.disk.keys()) {
      if (books.placements.get(uid)?.host === host.name) continue
      found.push({ uid, text: `a disk on ${host.name}, which does not have the machine` })
    }
  }
  return found
}

function machineProblem(uid: string, machine: VirtualMachine, fleet: Fleet): string | undefined {
  const placement = fleet.books.placements.get(uid)
  const running = fleet.guests.of(uid)
  const host = fleet.hosts.find(({ name }) => name === placement?.host)
  const isThere = host?.isOn === true
  if (placement !== undefined && !isThere && waits(placement)) return undefined
  if (machine.metadata.deletionTimestamp !== undefined) return 'it is being deleted still'
  if (machine.spec.powerState !== 'Running') {
    return running.length === 0 ? undefined : 'it runs and should not'
  }
  const [guest] = running
  if (guest !== undefined) {
    if (placement?.state === 'Claimed' && placement.host === guest.host) {
      const drains = fleet.books.hosts.get(guest.host)?.spec.drain === true
      return drains && machine.spec.onHostLoss === 'Replace' ? 'its host is drained' : undefined
    }
    return `it runs on ${guest.host} and is ${placement?.state} on ${placement?.host}`
  }
  if (isOver(machine) && placement?.state === 'Resting') return undefined
  const place = fitting(machine, placement, fleet)
  if (place === undefined || isHeldBack(machine, fleet)) return undefined
  const said = findCondition(machine.status?.conditions, 'Ready')?.message
  return `it does not run (${placement?.state ?? 'no placement'}: ${said}); ${place} could take it`
}

/** It stays with its host, which is away. */
function waits(placement: Placement): boolean {
  if (placement.state === 'Gone') return true
  if (placement.state === 'Lost') return false
  return isAnchored(placement) && placement.onHostLoss === 'Wait'
}

function isOver({ status, spec }: VirtualMachine): boolean {
  return status?.lastExit?.reason === 'GuestPoweredOff' && spec.restartPolicy === 'OnFailure'
}

/** Who waits before it for more than there is keeps room, so that small ones don't take it. */
function isHeldBack(machine: VirtualMachine, fleet: Fleet): boolean {
  const { priority } = machine.spec
  const since = machine.metadata.creationTimestamp ?? ''
  return [...fleet.books.machines.values()].some(({ metadata, spec, ...other }) => {
    const placement = fleet.books.placements.get(metadata.uid ?? '')
    const isWaiting = placement === undefined || wantsPlace(placement)
    if (!isWaiting || spec.powerState !== 'Running' || metadata.uid === machine.metadata.uid) {
      return false
    }
    const isEarlier = spec.priority === priority && (metadata.creationTimestamp ?? '') <= since
    if (spec.priority <= priority && !isEarlier) return false
    return fitting({ ...other, metadata, spec }, placement, fleet) === undefined
  })
}

/** A host that could take it. */
function fitting(
  machine: VirtualMachine,
  placement: Placement | undefined,
  { books, hosts }: Fleet,
): string | undefined {
  if (placement?.state === 'Claimed' || placement?.state === 'Assigned') return placement.host
  const anchor = placement && isAnchored(placement) ? placement.host : undefined
  const request = requestOf(machine)
  const fits = hosts.filter(({ name, isOn, init }) => {
    const { spec } = books.hosts.get(name) ?? {}
    if (!isOn || spec?.schedulable !== true || spec.drain === true) return false
    if (anchor !== undefined && anchor !== name) return false
    const selector = Object.entries(machine.spec.hostSelector ?? {})
    if (selector.some(([label, value]) => init.labels[label] !== value)) return false
    return books.hasRoom(name, request)
  })
  return fits[0]?.name
}
