import type { ExitReason, VirtualMachineSpec } from '../../resources/virtual-machine.ts'

/** How the last run of a guest ended. */
export interface LastExit {
  reason: ExitReason
  /** Whether we ended it because we were told to; then policy has no say in a new start. */
  intended: boolean
}

/** What is known of one machine at one moment: all that the next step depends on. */
export interface Situation {
  /** What the user wants; Gone when the machine is being deleted. */
  wanted: VirtualMachineSpec['powerState'] | 'Gone'
  restartPolicy: VirtualMachineSpec['restartPolicy']
  /** Whether a deletion may take the guest's power away at once. */
  mayCutPower: boolean
  /** QEMU as the guardian sees it; `ended` until its exit was collected. */
  process: 'none' | 'running' | 'ended'
  /** The guest as QMP sees it; `unknown` while QMP is not connected, `blocked` when its disk is full. */
  guest: 'unknown' | 'running' | 'paused' | 'blocked' | 'ended'
  /** Whether the host has room again for what guests write. */
  diskHasRoom: boolean
  /** A shutdown that we asked for is under way. */
  stopping: boolean
  /** Undefined when it never ran. */
  lastExit: LastExit | undefined
  /** The user asked for a start or a restart since the last start. */
  startAsked: boolean
  restartAsked: boolean
  /** Milliseconds until a start is allowed again (back-off after failures). */
  waitMs: number
}

/** The one thing to do next. */
export type Step =
  | { kind: 'rest' }
  | { kind: 'wait'; forMs: number }
  | { kind: 'start' }
  | { kind: 'shutDown'; intent: 'stop' | 'restart' | 'delete' }
  | { kind: 'quit'; intent: 'delete' | 'ended' }
  | { kind: 'pause' }
  | { kind: 'resume' }
  | { kind: 'collect' }
  | { kind: 'destroy' }

const rest: Step = { kind: 'rest' }

/** How often a guest that waits for room on the disk is looked at. */
const blockedRetryMs = 2000

/** The next step from any situation towards what is wanted. Level-triggered: no history but what is in it. */
export function decide(situation: Situation): Step {
  switch (situation.process) {
    case 'ended':
      return { kind: 'collect' }
    case 'running':
      return decideRunning(situation)
    case 'none':
      return decideAbsent(situation)
  }
}

function decideRunning(situation: Situation): Step {
  const { wanted, guest } = situation
  // QEMU stays, paused, when its guest has ended, so that the reason can be read: now let it go.
  if (guest === 'ended') return { kind: 'quit', intent: 'ended' }
  if (wanted === 'Gone' && situation.mayCutPower) return { kind: 'quit', intent: 'delete' }
  if (situation.stopping) return rest
  if (wanted === 'Gone') return { kind: 'shutDown', intent: 'delete' }
  if (wanted === 'Stopped') return { kind: 'shutDown', intent: 'stop' }
  if (situation.restartAsked) return { kind: 'shutDown', intent: 'restart' }
  if (wanted === 'Suspended' && guest === 'running') return { kind: 'pause' }
  if (wanted === 'Running' && guest === 'paused') return { kind: 'resume' }
  if (guest === 'blocked') {
    return situation.diskHasRoom ? { kind: 'resume' } : { kind: 'wait', forMs: blockedRetryMs }
  }
  return rest
}

function decideAbsent(situation: Situation): Step {
  const { wanted, waitMs } = situation
  if (wanted === 'Gone') return { kind: 'destroy' }
  if (wanted !== 'Running' || !mayStart(situation)) return rest
  return waitMs > 0 ? { kind: 'wait', forMs: waitMs } : { kind: 'start' }
}

/** Whether a guest that does not run may start, by its history and its policy. */
export function mayStart(situation: Situation): boolean {
  const { lastExit, restartPolicy } = situation
  if (lastExit === undefined || lastExit.intended) return true
  if (situation.startAsked || situation.restartAsked) return true
  if (lastExit.reason === 'GuestPoweredOff') return restartPolicy === 'Always'
  return restartPolicy !== 'Never'
}
