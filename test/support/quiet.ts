import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { busyFraction, parseProcessorTime } from '../../agent/monitor.ts'

/** The machine counts as quiet when its cores were less busy than this over one look. */
const quietFraction = 0.2
const lookMs = 300

const read = () => parseProcessorTime(readFileSync('/proc/stat', 'latin1'))

/**
 * Waits until the machine has nothing else to do, so that what is measured is not the others' work:
 * at most `patienceMs`.
 * @returns how much of the patience was used, in milliseconds
 */
export async function awaitQuiet(patienceMs: number, signal: AbortSignal): Promise<number> {
  signal.throwIfAborted()
  if (patienceMs <= 0) return 0
  const beganMs = performance.now()
  for (let before = read(); ; ) {
    await delay(lookMs, undefined, { signal })
    const now = read()
    const waitedMs = performance.now() - beganMs
    if (busyFraction(before, now) < quietFraction || waitedMs >= patienceMs) return waitedMs
    before = now
  }
}
