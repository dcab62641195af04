import { existsSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import { preciseTimestamp } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import { readEra } from '../../cluster/fleet/era.ts'
import type { Placement } from '../../cluster/fleet/placement.ts'
import { requestOf } from '../../cluster/scheduler/amounts.ts'
import { makeGuestFolder } from '../../kvm/guest-folder.ts'
import { imageKind } from '../../resources/image.ts'
import {
  restartedAtAnnotation,
  startedAtAnnotation,
  type VirtualMachine,
} from '../../resources/virtual-machine.ts'
import type { ProvidedImage, WantedImage } from '../images/image-supply.ts'
import { fetchImage } from './image-fetch.ts'
import { checkLaunchable, chooseResources, prepareLaunch } from './launch.ts'
import { madeFrom } from './made-from.ts'
import { closeArrival, openArrival } from './open-arrival.ts'
import { folderOwners, type GuestRecord, newRecord } from './record.ts'
import { askForRoom } from './room.ts'
import type { StepContext } from './step-context.ts'
import { saveRecord, type Tracked } from './tracked.ts'

/**
 * Starts a guest: room for it, its image (or the beginning of its way here), its user and ports,
 * its record, its files, and last its QEMU. A crash before the last leaves a start that is owed and
 * files that the next try uses; after it, a guest that is adopted.
 * @throws what stands in the way, from the error table
 */
export async function startGuest(
  tracked: Tracked,
  machine: VirtualMachine,
  context: StepContext,
): Promise<void> {
  const { uid, namespace, name, folder } = tracked
  const requestedAtMs = tracked.fetch?.requestedAtMs ?? context.clock.wallMs()
  const { again, before } = earlier(tracked)
  const request = requestOf(machine)
  const promised = context.placements.of(uid)?.request
  if (promised !== undefined && !isDeepStrictEqual(promised, request)) {
    // It was changed since it was placed: what it wants now has to be asked for.
    await askForRoom(uid, request, context)
    return
  }
  admit(tracked, machine, context)
  const wanted = await wantedImage(machine, before, context)
  const image = fetchImage(tracked, wanted, context)
  if (image === undefined) return
  checkFits(image, machine)
  await context.images.use(image.record.digest, { uid, name: `${namespace}/${name}` })
  context.imageUseChanged()
  // From here on it is this host's alone, until its lease ends or the machine is given up.
  const placement = await context.placements.claim(uid, machine.spec.onHostLoss)
  const { diskEpoch } = placement
  const { era: _, ...rest } = before
  const era = await readEra(context.store)
  const asked = {
    ...rest,
    imageDigest: image.record.digest,
    ...(diskEpoch !== undefined && { diskEpoch }),
    ...(era !== undefined && { era }),
  }
  const lazy = image.filling !== undefined && { lazyImage: { name: wanted.name } }
  const record = await context.choosing.take(async () => {
    const others = context.records().filter(other => other.uid !== uid)
    const owners = await folderOwners(context.host.roots)
    const chosen = await chooseResources({ machine, record: asked, others, owners }, context)
    tracked.record = { ...startedRecord(chosen, machine, requestedAtMs), ...lazy }
    await makeGuestFolder(folder, chosen.user)
    await saveRecord(tracked)
    return tracked.record
  })
  const start = await prepareLaunch({ machine, record, folder, image }, context)
  if (lazy && !(await exportImage(tracked, wanted, context))) return
  const claim = claimOf(placement, context)
  const identity = await context.guardian.start({ ...start, ...(claim && { claim }) })
  // An exit that was pushed meanwhile says more than this answer.
  if (context.processes.get(uid)?.identity?.pid !== identity.pid) {
    const startedAt = preciseTimestamp(context.clock)
    context.processes.set({ name: uid, identity, startedAt })
  }
  record.bootTimings = { spawnedMs: context.clock.wallMs() - requestedAtMs }
  context.metrics.started(again)
  const message = `Started QEMU on ${context.host.name} (${context.host.accelerator.accelerator})`
  context.events.record(machine, { type: 'Normal', reason: 'Started', message })
  context.wake()
}

/**
 * Gives QEMU something to read its image from while that is on its way.
 * @returns false when it is here by now, so that the start is begun anew with the file
 */
async function exportImage(
  tracked: Tracked,
  image: WantedImage,
  context: StepContext,
): Promise<boolean> {
  await closeArrival(tracked)
  const arrival = openArrival({ tracked, image, onChange: context.wake }, context)
  tracked.arrival = arrival
  try {
    if ((await arrival.exported()) === 'exported') return true
  } catch (error) {
    await closeArrival(tracked)
    throw error
  }
  await closeArrival(tracked)
  context.wake()
  return false
}

/** What lets the guardian start it: nothing that was claimed under a lease that has ended. */
function claimOf({ leaseRevision, onHostLoss }: Placement, { lease }: StepContext) {
  if (leaseRevision === undefined) return undefined
  return lease.claim(leaseRevision, onHostLoss === 'Replace')
}

/** What is known from starts before. @throws guestRecordDamaged */
function earlier({ uid, namespace, name, folder, record }: Tracked): {
  again: boolean
  before: GuestRecord
} {
  if (record !== undefined) return { again: record.lastExit !== undefined, before: record }
  // A new record would give it another user, to whom its disk does not belong.
  if (existsSync(folder.record)) throw failure('guestRecordDamaged', { path: folder.record })
  return { again: false, before: newRecord(uid, namespace, name) }
}

/**
 * Reserves what the machine was promised.
 * @throws hostDiskFull, hostFull, unavailable, machineUnsupported
 */
function admit(
  { uid }: Tracked,
  machine: VirtualMachine,
  { host, reservations, ...context }: StepContext,
): void {
  const { name } = host
  checkLaunchable(machine, host)
  if (!context.diskHasRoom()) throw failure('hostDiskFull', { host: name })
  // The leader counted the same; but what is free here is known best here.
  const lacking = reservations.reserve(uid, requestOf(machine), context.allocatable())
  if (lacking.length > 0) {
    throw failure('hostFull', { host: name, shortages: lacking.join('; ') })
  }
}

/**
 * The image under the machine's disk: the one it began with, else the one that its name means now.
 * @throws imageUnknown, imageNotReady
 */
async function wantedImage(
  machine: VirtualMachine,
  record: GuestRecord,
  { objects }: StepContext,
): Promise<WantedImage> {
  const { namespace = '' } = machine.metadata
  const name = machine.spec.image
  let digest = record.imageDigest
  if (digest === undefined) {
    const image = await objects.find(imageKind, { namespace, name })
    if (image === undefined) throw failure('imageUnknown', { name, namespace })
    if (image.metadata.deletionTimestamp !== undefined) {
      throw failure('imageNotReady', { name, phase: 'it is being deleted' })
    }
    if (image.status?.phase !== 'Ready' || image.status.digest === undefined) {
      throw failure('imageNotReady', { name, phase: image.status?.phase ?? 'Importing' })
    }
    digest = image.status.digest
  }
  return { namespace, name, digest }
}

/** @throws imageUnfit */
function checkFits({ record }: ProvidedImage, { spec }: VirtualMachine): void {
  const made = `${record.machine} on ${record.arch}`
  const wanted = `${spec.machine} on x86_64`
  if (made !== wanted) throw failure('imageUnfit', { name: spec.image, made, wanted })
}

function startedRecord(
  record: GuestRecord,
  machine: VirtualMachine,
  startedAtMs: number,
): GuestRecord {
  const { intent: _, guestEnding: __, notBeforeMs: ___, lazyImage: ____, ...rest } = record
  const annotations = machine.metadata.annotations ?? {}
  return {
    ...rest,
    // One that was begun and did not take place is the same start still.
    runs: record.startBegun ? record.runs : record.runs + 1,
    startBegun: true,
    request: requestOf(machine),
    madeFrom: madeFrom(machine.spec),
    startedAtMs,
    bootTimings: {},
    actedStart: annotations[startedAtAnnotation],
    actedRestart: annotations[restartedAtAnnotation],
  }
}
