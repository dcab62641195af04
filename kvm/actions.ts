import { failure } from '../base/errors.ts'
import type { RunState } from './qmp/commands.ts'

/**
 * Everything that can be done to a running guest; the only door into one. Which run states allow an
 * action is told by `allowedRunStates`, and every other state refuses it by name.
 */
export type GuestAction =
  /** Presses the power button (ACPI). The guest decides whether and when it obeys. */
  | { kind: 'powerdown' }
  /** Ends QEMU at once, as pulling the plug would: what the guest had not written is lost. */
  | { kind: 'quit' }
  /**
   * Starts the guest anew from its firmware, without asking it. It runs afterwards, unless it was
   * paused: then it waits at its first instruction until it is resumed.
   */
  | { kind: 'reset' }
  /** Stops the virtual CPUs; memory and devices stay as they are. */
  | { kind: 'pause' }
  /** Lets the virtual CPUs run on: after a pause, or after an I/O error whose cause is gone. */
  | { kind: 'resume' }
  /**
   * Puts the image's file behind the disk in place of its export, without the guest noticing; there
   * must be a file (base.raw). Nothing happens when that was done before.
   */
  | { kind: 'useImageFile' }

/** What can be done, by name. */
export type GuestActionKind = GuestAction['kind']

/**
 * In which run states an action makes sense. A guest that has ended (`shutdown`, `internal-error`)
 * can't go on, QEMU wants a reset first; while a migration is under way nothing but `quit` is safe.
 */
export const allowedRunStates: Record<GuestActionKind, readonly RunState[] | 'any'> = {
  powerdown: ['running', 'suspended'],
  quit: 'any',
  reset: [
    'running',
    'paused',
    'prelaunch',
    'suspended',
    'shutdown',
    'guest-panicked',
    'io-error',
    'internal-error',
    'watchdog',
  ],
  pause: ['running'],
  resume: ['paused', 'prelaunch', 'io-error', 'watchdog'],
  useImageFile: 'any',
}

/**
 * Refuses an action that the guest's run state does not allow.
 * @throws actionNotAllowed
 */
export function checkAllowed(kind: GuestActionKind, runState: RunState): void {
  const allowed = allowedRunStates[kind]
  if (allowed === 'any' || allowed.includes(runState)) return
  throw failure('actionNotAllowed', { action: kind, runState, allowed: allowed.join(' or ') })
}
