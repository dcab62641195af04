import { failure } from '../../base/errors.ts'
import { endingOf } from '../../kvm/ending.ts'
import { removeGuestFolder } from '../../kvm/guest-folder.ts'
import {
  startedAtAnnotation,
  type VirtualMachine,
  virtualMachineKind,
} from '../../resources/virtual-machine.ts'
import { collectExit } from './collect.ts'
import { blockedRetryMs, type Step } from './decide.ts'
import type { GuestRecord, Intent } from './record.ts'
import { startGuest } from './start.ts'
import { killGuest, type StepContext } from './step-context.ts'
import { beginShutdown } from './stop.ts'
import { saveRecord, type Tracked } from './tracked.ts'

/**
 * Carries out one step. Each may be repeated after a crash in the middle.
 * @returns whether the next step can be decided at once
 */
export async function performStep(
  step: Step,
  tracked: Tracked,
  machine: VirtualMachine,
  context: StepContext,
): Promise<boolean> {
  switch (step.kind) {
    case 'rest':
      clearObstacle(tracked)
      // What is to start again keeps its room; what rests does not need it.
      if (
        context.processes.get(tracked.uid) === undefined &&
        context.reservations.release(tracked.uid)
      ) {
        context.wakeHindered()
      }
      return false
    case 'wait':
      clearObstacle(tracked)
      return false
    case 'start':
      await startGuest(tracked, machine, context)
      return false
    case 'acknowledge':
      await acknowledge(tracked, machine)
      return true
    case 'collect':
      await collectExit(tracked, machine, context)
      return true
    case 'shutDown':
      await intend(tracked, step.intent)
      beginShutdown(tracked, machine, context)
      return false
    case 'quit':
      await quit(tracked, step.intent, context)
      return false
    case 'pause':
    case 'resume':
      tracked.resumeNotBeforeMs = context.clock.monotonicMs() + blockedRetryMs
      await tracked.runtime?.guest.perform({ kind: step.kind })
      return true
    case 'destroy':
      await destroy(tracked, context)
      return false
  }
}

/** Nothing stands in the way of a machine that is as it should be. */
export function clearObstacle(tracked: Tracked): void {
  tracked.obstacle = undefined
  tracked.waiting = undefined
}

/** Takes note that a start was asked for, of a guest that runs: it is done. */
async function acknowledge(tracked: Tracked, machine: VirtualMachine): Promise<void> {
  const { record } = tracked
  if (record === undefined) return
  const actedStart = machine.metadata.annotations?.[startedAtAnnotation]
  tracked.record = { ...record, ...(actedStart !== undefined && { actedStart }) }
  await saveRecord(tracked)
}

/** Writes down why a run is ended before it is: whoever sees the end knows that it was meant. */
async function intend(
  tracked: Tracked,
  intent: Intent,
  guestEnding?: GuestRecord['guestEnding'],
): Promise<void> {
  const { record } = tracked
  if (record === undefined) return
  const kept = guestEnding === undefined ? {} : { guestEnding }
  // A guest that ended by itself while we were shutting it down ended because we asked.
  const next = { ...record, intent: record.intent ?? intent, ...kept }
  tracked.record = intent === 'delete' ? { ...next, intent } : next
  await saveRecord(tracked)
}

async function quit(
  tracked: Tracked,
  intent: 'delete' | 'ended',
  context: StepContext,
): Promise<void> {
  const runState = tracked.runtime?.guest.status().runState
  const ending = endingOf({ runState, meant: false, exit: undefined })
  const guestEnding = ending && { reason: ending.cause, message: ending.message }
  await intend(tracked, intent, intent === 'ended' ? guestEnding : undefined)
  tracked.stopping?.abort()
  if (intent === 'ended') {
    // Let QEMU write what its guest wrote and did not flush; a QEMU that does not is ended all the same.
    const gentle = tracked.runtime?.guest.perform({ kind: 'quit' })
    if (await gentle?.then(() => true).catch(() => false)) return
  }
  await killGuest(tracked, context)
}

/** Removes everything of a guest that does not run, then lets its machine go from the store. */
async function destroy(tracked: Tracked, context: StepContext): Promise<void> {
  const { uid, namespace, name, folder } = tracked
  const { images } = context
  const finalizer = virtualMachineKind.finalizer
  if (finalizer === undefined) throw failure('internal', { detail: 'machines have no finalizer' })
  await removeGuestFolder(folder)
  // Not only the one in its record: a start that failed early had no record yet.
  for (const { digest } of images.list()) await images.release(digest, uid)
  context.imageUseChanged()
  context.reservations.release(uid)
  await context.objects.releaseFinalizer(virtualMachineKind, { namespace, name }, finalizer, uid)
  context.log.info({ uid, namespace, name }, 'machine deleted')
}
