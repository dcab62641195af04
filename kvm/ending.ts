import type { RunState } from './qmp/commands.ts'

/** How a QEMU process ended, as its parent saw it. */
export interface ProcessExit {
  /** The exit code; null when a signal ended it. */
  code: number | null
  /** The signal's name; null when it ended by itself. */
  signal: string | null
  /** The end of what it wrote to its standard error. */
  stderr: string
}

/** What is known of a guest when its end is judged. */
export interface EndingFacts {
  /**
   * The run state that QEMU told last. It outlives a restart of the daemon: a QEMU whose guest has
   * powered off or panicked stays up, paused, until the daemon has read that and ends it.
   */
  runState: RunState | undefined
  /** Whether we had meant to end it, as written down before we did. */
  meant: boolean
  /** Undefined while the process runs. */
  exit: ProcessExit | undefined
}

/** What ended a guest. */
export type EndingCause = 'GuestPoweredOff' | 'GuestPanicked' | 'QemuDied' | 'Killed'

/** The end of a guest, for programs and for people. */
export interface Ending {
  cause: EndingCause
  message: string
}

/** The end of QEMU's stderr that goes into a message: enough for its last error, not for a dump. */
const stderrLengthMax = 1000

/**
 * Tells what ended a guest, from what QEMU said last, from what we meant to do, and from how the
 * process went, in this order: a guest that powered off before we ended its QEMU did end by itself.
 * @returns undefined when it has not ended
 */
export function endingOf(facts: EndingFacts): Ending | undefined {
  const { runState, meant, exit } = facts
  if (runState === 'shutdown') {
    return { cause: 'GuestPoweredOff', message: 'The guest powered itself off' }
  }
  if (runState === 'guest-panicked') {
    return { cause: 'GuestPanicked', message: "The guest's kernel panicked" }
  }
  if (exit === undefined) return undefined
  if (meant) return { cause: 'Killed', message: 'macfleet ended the guest, as it was told to' }
  return { cause: 'QemuDied', message: `QEMU ${outcomeOf(exit)}${lastWords(exit.stderr)}` }
}

function outcomeOf(exit: ProcessExit): string {
  if (exit.signal !== null) return `was killed by ${exit.signal}`
  if (exit.code === 0) return 'ended without being told to'
  return `ended with exit code ${exit.code}`
}

function lastWords(stderr: string): string {
  // The daemon shows this to people: no escape sequences, no control characters.
  const printable = stderr.replaceAll(/[^\P{C}\n\t]/gu, '').trim()
  if (printable === '') return '; it said nothing'
  return `: ${printable.slice(-stderrLengthMax)}`
}
