import type { Clock, Timer } from './clock.ts'

interface Pending {
  atMs: number
  order: number
  callback: () => void
}

/** A clock that stands still until it is told to advance; timers fire in order of time, then of setting. */
export interface ManualClock extends Clock {
  /** Moves time on by `byMs`, firing what falls due, and lets promise callbacks run in between. */
  advance(byMs: number): Promise<void>
  /** How many timers are pending. */
  pendingTimers(): number
}

/** Lets every promise callback that is ready run. */
async function settle(): Promise<void> {
  for (let round = 0; round < 20; round++) await Promise.resolve()
}

/** @param startMs the wall time at which the clock starts, in milliseconds since the epoch */
export function createManualClock(startMs = 1_700_000_000_000): ManualClock {
  let elapsedMs = 0
  let nextOrder = 0
  const pending = new Set<Pending>()
  const nextDue = (untilMs: number): Pending | undefined =>
    [...pending]
      .filter(timer => timer.atMs <= untilMs)
      .sort((a, b) => a.atMs - b.atMs || a.order - b.order)[0]

  return {
    wallMs: () => startMs + elapsedMs,
    monotonicMs: () => elapsedMs,
    pendingTimers: () => pending.size,
    setTimer(delayMs, callback): Timer {
      const timer = { atMs: elapsedMs + Math.max(0, delayMs), order: nextOrder++, callback }
      pending.add(timer)
      return { cancel: () => pending.delete(timer) }
    },
    async advance(byMs) {
      const untilMs = elapsedMs + byMs
      await settle()
      for (let due = nextDue(untilMs); due !== undefined; due = nextDue(untilMs)) {
        pending.delete(due)
        elapsedMs = Math.max(elapsedMs, due.atMs)
        due.callback()
        await settle()
      }
      elapsedMs = untilMs
    },
  }
}
