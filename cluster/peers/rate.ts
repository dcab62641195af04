import type { Clock } from '../../base/clock.ts'

/** How much may be done in a while. */
export interface RateInit {
  perSecond: number
  /** How much may be saved up by doing nothing. */
  most: number
}

/** Counts what is done against what may be. */
export interface Rate {
  /** @returns whether there was room for it; if not, nothing is counted */
  take(amount: number): boolean
}

/** A token bucket, full at the start. */
export function createRate({ perSecond, most }: RateInit, clock: Clock): Rate {
  let left = most
  let lastMs = clock.monotonicMs()
  return {
    take(amount) {
      const nowMs = clock.monotonicMs()
      left = Math.min(most, left + ((nowMs - lastMs) / 1000) * perSecond)
      lastMs = nowMs
      if (left < amount) return false
      left -= amount
      return true
    },
  }
}
