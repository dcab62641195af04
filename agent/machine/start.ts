import { preciseTimestamp } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import { imageKind } from '../../resources/image.ts'
import {
  restartedAtAnnotation,
  startedAtAnnotation,
  type VirtualMachine,
} from '../../resources/virtual-machine.ts'
import { requestOf } from '../capacity.ts'
import { type ImageFiles, prepareLaunch } from './launch.ts'
import { type GuestRecord, newRecord } from './record.ts'
import type { StepContext } from './step-context.ts'
import { saveRecord, type Tracked } from './tracked.ts'

/**
 * Starts a guest: room for it, its image, its files, its record, and last its QEMU. A crash before
 * the last leaves files that the next try uses; after it, a guest that is adopted.
 * @throws what stands in the way, from the error table
 */
export async function startGuest(
  tracked: Tracked,
  machine: VirtualMachine,
  context: StepContext,
): Promise<void> {
  const { uid, namespace, name, folder } = tracked
  const requestedAtMs = context.clock.wallMs()
  admit(tracked, machine, context)
  const before = tracked.record ?? newRecord(uid, namespace, name)
  const image = await findImage(machine, before, context)
  await context.images.use(image.record.digest, { uid, name: `${namespace}/${name}` })
  context.imageUseChanged()
  const others = context.records().filter(other => other.uid !== uid)
  const prepared = await prepareLaunch({ machine, record: before, folder, image, others }, context)
  tracked.record = startedRecord(prepared.record, machine, requestedAtMs)
  await saveRecord(tracked)
  const identity = await context.guardian.start(prepared.start)
  // An exit that was pushed meanwhile says more than this answer.
  if (context.processes.get(uid)?.identity?.pid !== identity.pid) {
    const startedAt = preciseTimestamp(context.clock)
    context.processes.set(uid, { name: uid, identity, startedAt })
  }
  tracked.record.bootTimings = { spawnedMs: context.clock.wallMs() - requestedAtMs }
  tracked.obstacle = undefined
  const message = `Started QEMU on ${context.host.name} (${context.host.accelerator.accelerator})`
  context.events.record(machine, { type: 'Normal', reason: 'Started', message })
  context.wake()
}

/** Reserves what the machine was promised. @throws hostFull, diskFull */
function admit(tracked: Tracked, machine: VirtualMachine, context: StepContext): void {
  const { reservations, host } = context
  if (!context.diskHasRoom()) throw failure('hostDiskFull', { host: host.name })
  const lacking = reservations.reserve(tracked.uid, requestOf(machine), context.allocatable())
  if (lacking.length === 0) return
  throw failure('hostFull', { host: host.name, shortages: lacking.join('; ') })
}

/**
 * The image under the machine's disk: the one it began with, else the one that its name means now.
 */
async function findImage(
  machine: VirtualMachine,
  record: GuestRecord,
  { objects, images }: StepContext,
): Promise<ImageFiles> {
  const { namespace } = machine.metadata
  const name = machine.spec.image
  let digest = record.imageDigest
  if (digest === undefined) {
    const image = await objects.find(imageKind, { namespace, name })
    if (image === undefined) throw failure('imageUnknown', { name, namespace: namespace ?? '' })
    if (image.status?.phase !== 'Ready' || image.status.digest === undefined) {
      throw failure('imageNotReady', { name, phase: image.status?.phase ?? 'Importing' })
    }
    digest = image.status.digest
  }
  const found = images.get(digest)
  if (found === undefined) throw failure('imageContentMissing', { name, digest })
  return {
    record: found,
    disk: images.diskPath(digest),
    kernel: images.kernelPath(digest),
    initrd: images.initrdPath(digest),
  }
}

function startedRecord(
  record: GuestRecord,
  machine: VirtualMachine,
  startedAtMs: number,
): GuestRecord {
  const { intent: _, guestEnding: __, notBeforeMs: ___, ...rest } = record
  const annotations = machine.metadata.annotations ?? {}
  return {
    ...rest,
    runs: record.runs + 1,
    startedAtMs,
    bootTimings: {},
    actedStart: annotations[startedAtAnnotation],
    actedRestart: annotations[restartedAtAnnotation],
  }
}
