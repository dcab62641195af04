import { failure } from '../../base/errors.ts'
import { requestOf } from '../../cluster/scheduler/amounts.ts'
import { endingOf } from '../../kvm/ending.ts'
import {
  startedAtAnnotation,
  type VirtualMachine,
  virtualMachineKind,
} from '../../resources/virtual-machine.ts'
import { collectExit } from './collect.ts'
import { blockedRetryMs, type Step } from './decide.ts'
import { dropFetch } from './image-fetch.ts'
import type { GuestRecord, Intent } from './record.ts'
import { removeGuest } from './remove.ts'
import { askForRoom, giveRoomBack } from './room.ts'
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
  if (step.kind !== 'start') dropFetch(tracked)
  switch (step.kind) {
    case 'rest':
      clearObstacle(tracked)
      await giveRoomBack(tracked.uid, context)
      return false
    case 'wait':
      clearObstacle(tracked)
      return false
    case 'start':
      await startGuest(tracked, machine, context)
      return false
    case 'askForRoom':
      await askForRoom(tracked.uid, requestOf(machine), context)
      return false
    case 'surrender': {
      const message = `${context.host.name} is being drained`
      await context.placements.surrender(tracked.uid, { reason: 'Drained', message })
      return false
    }
    case 'claimAnew':
      await claimAnew(tracked, machine, context)
      return true
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
}

/**
 * Claims a guest that runs as its machine is now. In an order in which the store never says that it
 * may be replaced while the guardian would not end it in time: first the guardian fences what was
 * not, and only when the store has the claim does the new lease give the guest time.
 */
async function claimAnew(
  { uid }: Tracked,
  machine: VirtualMachine,
  { placements, guardian, lease }: StepContext,
): Promise<void> {
  const { onHostLoss } = machine.spec
  const fenced = onHostLoss === 'Replace'
  const tellGuardian = async (revision: number | undefined, ahead: boolean): Promise<void> => {
    const claim = revision === undefined ? undefined : lease.claim(revision, fenced)
    if (claim !== undefined) await guardian.claim(uid, claim, ahead)
  }
  if (fenced) await tellGuardian(lease.leaseRevision(), true)
  const { leaseRevision } = await placements.claim(uid, onHostLoss)
  await tellGuardian(leaseRevision, false)
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
    // Let QEMU write what its guest wrote and did not flush; a QEMU that does not is ended all the
    // same.
    const gentle = tracked.runtime?.guest.perform({ kind: 'quit' })
    if (await gentle?.then(() => true).catch(() => false)) return
  }
  await killGuest(tracked, context)
}

/** Removes everything of a guest that does not run, then lets its machine go from the store. */
async function destroy(tracked: Tracked, context: StepContext): Promise<void> {
  const { uid, namespace, name } = tracked
  const finalizer = virtualMachineKind.finalizer
  if (finalizer === undefined) throw failure('internal', { detail: 'machines have no finalizer' })
  await removeGuest(tracked, context)
  await context.objects.releaseFinalizer(virtualMachineKind, { namespace, name }, finalizer, uid)
  await context.placements.remove(uid)
  context.log.info({ uid, namespace, name }, 'machine deleted')
}
