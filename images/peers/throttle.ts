import { type Clock, sleep } from '../../base/clock.ts'

/** Lets so many bytes a second through. */
export interface Throttle {
  /** Resolves when so many bytes more may go; in the order of asking. */
  take(bytes: number, signal: AbortSignal): Promise<void>
}

/** How long may be saved up by doing nothing. */
const savedMs = 250

/**
 * A bucket of tokens, which may be overdrawn: whoever does so waits until it is full again by that
 * much, so that bytes come at the rate whatever their portions.
 * @param bytesPerSecond undefined: as many as there are
 */
export function createThrottle(bytesPerSecond: number | undefined, clock: Clock): Throttle {
  if (bytesPerSecond === undefined) return { take: async () => {} }
  /** When everything that was let through would have gone at the rate. */
  let paidUntilMs = clock.monotonicMs() - savedMs
  return {
    async take(bytes, signal) {
      const nowMs = clock.monotonicMs()
      paidUntilMs = Math.max(paidUntilMs, nowMs - savedMs) + (bytes / bytesPerSecond) * 1000
      if (paidUntilMs > nowMs) await sleep(clock, paidUntilMs - nowMs, signal)
    },
  }
}
