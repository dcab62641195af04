import type { ExitReason, VirtualMachineSpec } from '../../resources/virtual-machine.ts'

/** How the last run of a guest ended. */
export interface LastExit {
  reason: ExitReason
  /** Whether we ended it because we were told to; then policy has no say in a new start. */
  intended: boolean
}

/**
 * What the placement says of a machine: this host may run it (`ours`), has its disk and would have
 * to ask for room (`resting`) or has asked (`waking`), or nothing is known of it now (`unknown`).
 */
export type Standing = 'ours' | 'resting' | 'waking' | 'unknown'

/** What is known of one machine at one moment: all that the next step depends on. */
export interface Situation {
  standing: Standing
  /** What was claimed for the guest is not what would be claimed now. */
  claimIsOld: boolean
  /** It is to run elsewhere: the host is being emptied, and the machine may be replaced. */
  draining: boolean
  /** What the user wants; Gone when the machine is being deleted. */
  wanted: VirtualMachineSpec['powerState'] | 'Gone'
  restartPolicy: VirtualMachineSpec['restartPolicy']
  /** Whether a deletion may take the guest's power away at once. */
  mayCutPower: boolean
  /** QEMU as the guardian sees it; `ended` until its exit was collected. */
  process: 'none' | 'running' | 'ended'
  /**
   * The guest as QMP sees it; `unknown` while QMP is not connected, `blocked` when its disk is
   * full, or it waits for a part of its image.
   */
  guest: 'unknown' | 'running' | 'paused' | 'blocked' | 'ended'
  /** Whether the host has room again for what guests write. */
  diskHasRoom: boolean
  /** Nothing comes of an image that is still on its way. */
  imageStalled: boolean
  /** A shutdown that we asked for is under way. */
  stopping: boolean
  /** Why its run is being ended, as written down; it outlives a daemon, `stopping` does not. */
  intent: 'stop' | 'restart' | 'delete' | 'drain' | 'ended' | undefined
  /** A start was begun that did not take place: the daemon ended, or something was in its way. */
  startBegun: boolean
  /** Milliseconds until a guest that is blocked is resumed again. */
  blockedWaitMs: number
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
  | { kind: 'askForRoom' }
  | { kind: 'surrender' }
  | { kind: 'claimAnew' }
  | { kind: 'shutDown'; intent: 'stop' | 'restart' | 'delete' | 'drain' }
  | { kind: 'quit'; intent: 'delete' | 'ended' }
  | { kind: 'pause' }
  | { kind: 'resume' }
  | { kind: 'acknowledge' }
  | { kind: 'collect' }
  | { kind: 'destroy' }

const rest: Step = { kind: 'rest' }

/** How often a machine is looked at of whose placement nothing is known. */
const unknownRetryMs = 5000

/** How often a guest that waits for room on the disk, or for its image, is looked at. */
export const blockedRetryMs = 2000

/**
 * The next step from any situation towards what is wanted. Level-triggered: no history but what is
 * in it.
 */
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
  if (situation.draining) return { kind: 'shutDown', intent: 'drain' }
  // Begun by a daemon that is gone: the guest may be on its way down, so it is seen through.
  const { intent } = situation
  if (intent === 'stop' || intent === 'restart' || intent === 'drain') {
    return { kind: 'shutDown', intent }
  }
  if (situation.restartAsked) return { kind: 'shutDown', intent: 'restart' }
  // It runs, as was asked; or the wish would start it again after its next end.
  if (situation.startAsked && guest === 'running') return { kind: 'acknowledge' }
  if (situation.claimIsOld) return { kind: 'claimAnew' }
  if (wanted === 'Suspended' && guest === 'running') return { kind: 'pause' }
  if (wanted === 'Running' && guest === 'paused') return { kind: 'resume' }
  if (guest === 'blocked') {
    const inVain = !situation.diskHasRoom || situation.imageStalled
    if (inVain) return { kind: 'wait', forMs: blockedRetryMs }
    // What blocks it may be a disk that fails, and not one that is full.
    const forMs = situation.blockedWaitMs
    return forMs > 0 ? { kind: 'wait', forMs } : { kind: 'resume' }
  }
  return rest
}

function decideAbsent(situation: Situation): Step {
  const { wanted, waitMs, standing } = situation
  // Nothing is begun, and nothing given up, on what is not known.
  if (standing === 'unknown') return { kind: 'wait', forMs: unknownRetryMs }
  if (wanted === 'Gone') return { kind: 'destroy' }
  if (wanted !== 'Running' || !mayStart(situation)) return rest
  if (situation.draining) return { kind: 'surrender' }
  if (waitMs > 0) return { kind: 'wait', forMs: waitMs }
  if (standing === 'ours') return { kind: 'start' }
  return { kind: 'askForRoom' }
}

/** Whether a guest that does not run may start, by its history and its policy. */
export function mayStart(situation: Situation): boolean {
  const { lastExit, restartPolicy } = situation
  if (lastExit === undefined || lastExit.intended || situation.startBegun) return true
  if (situation.startAsked || situation.restartAsked) return true
  if (lastExit.reason === 'GuestPoweredOff') return restartPolicy === 'Always'
  return restartPolicy !== 'Never'
}
