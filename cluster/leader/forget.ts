import { type Clock, timestamp } from '../../base/clock.ts'
import { failure, isFailure } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import { hostKind } from '../../resources/host.ts'
import { hostLeaseKey, memberKey, placementPrefix } from '../fleet/keys.ts'
import {
  isAnchored,
  moved,
  type Placement,
  placementOf,
  placementStep,
} from '../fleet/placement.ts'
import { dropHolder } from '../image-holders.ts'
import { objectNotFound } from '../object-record.ts'
import type { Objects } from '../objects.ts'
import type { Compare, Entry, Operation, Store } from '../store/store.ts'

/** What forgetting needs. */
export interface ForgetComponents {
  store: Store
  objects: Objects
  clock: Clock
  log: Log
}

/** Placements of one transaction; each has a compare and an operation. */
const batchPlacements = 60
/** Each round without a host's lease ends with fewer placements that name it, or with none. */
const mostRounds = 32

/**
 * The operator vouches that a host is powered off for good. Machines that may be replaced are given
 * to others at once; those that wait for their host are given up with their disks. Then the host is
 * no member any more. May be called on any host, and again when it failed in the middle.
 * @throws hostInTouch while the host's lease lives; notFound; unavailable
 */
export async function forgetHost(name: string, components: ForgetComponents): Promise<void> {
  const { store, objects, log } = components
  const member = (await store.get(memberKey(name))).entry
  const host = await objects.find(hostKind, { name })
  let given = 0
  for (let round = 0; ; round++) {
    const left = await placementsOf(store, name)
    if (left.length === 0) break
    if (round === mostRounds) {
      throw failure('conflict', { resource: 'placements of the host', name })
    }
    given += await giveUp(name, left, components)
  }
  if (member === undefined && host === undefined && given === 0) {
    throw objectNotFound(hostKind, name)
  }
  await dropHolder(name, objects)
  if (member !== undefined) await removeMember(store, member, name)
  if (host !== undefined) {
    await objects.remove(hostKind, { name }).catch(error => {
      if (!isFailure(error, 'notFound')) throw error
    })
  }
  log.warn({ host: name, machines: given }, 'a host was forgotten')
}

/** Those of which the host may still have something. */
async function placementsOf(store: Store, host: string): Promise<Entry[]> {
  const { entries } = await store.list(placementPrefix)
  return entries.filter(entry => {
    const placement = placementOf(entry)
    const { state } = placement
    // What it refused without having a disk is not its, and wants another host anyway.
    const refused = state === 'Refused' && !isAnchored(placement)
    return placement.host === host && state !== 'Lost' && state !== 'Gone' && !refused
  })
}

/** @returns how many were given up */
async function giveUp(
  host: string,
  left: readonly Entry[],
  { store, clock }: ForgetComponents,
): Promise<number> {
  let given = 0
  for (let at = 0; at < left.length; at += batchPlacements) {
    const batch = left.slice(at, at + batchPlacements)
    const steps = batch.map(entry => placementStep(entry, forgotten(placementOf(entry), clock)))
    const done = await writeWithoutLease(store, host, {
      compare: steps.flatMap(({ compare }) => compare),
      operations: steps.map(({ operation }) => operation),
    })
    // What changed meanwhile is read anew in the next round.
    if (done) given += batch.length
  }
  return given
}

function forgotten(placement: Placement, clock: Clock): Placement {
  const { host, onHostLoss } = placement
  const at = timestamp(clock)
  const next = !isAnchored(placement) || onHostLoss === 'Replace' ? 'Lost' : 'Gone'
  const reason = next === 'Lost' ? 'HostLost' : 'HostForgotten'
  return moved(placement, next, { at, reason, message: `The host ${host} was forgotten` })
}

async function removeMember(store: Store, member: Entry, host: string): Promise<void> {
  const { key, modRevision } = member
  const removed = await writeWithoutLease(store, host, {
    compare: [{ key, modRevision }],
    operations: [{ delete: key }],
  })
  if (!removed) throw failure('conflict', { resource: 'members', name: host })
}

/** @returns whether it was written. @throws hostInTouch when the host's lease is there */
async function writeWithoutLease(
  store: Store,
  host: string,
  part: { compare: readonly Compare[]; operations: readonly Operation[] },
): Promise<boolean> {
  const lease = { key: hostLeaseKey(host), modRevision: 0 }
  const { succeeded, current } = await store.transaction({
    compare: [lease, ...part.compare],
    operations: part.operations,
  })
  if (!succeeded && current[0] !== undefined) throw failure('hostInTouch', { host })
  return succeeded
}
