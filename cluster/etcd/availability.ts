import type { Clock } from '../../base/clock.ts'

/** Whether etcd answered last time. */
export interface EtcdAvailability {
  available: boolean
  /** Monotonic time since when this is so. */
  sinceMs: number
  /** Why it is not available, or why it was not the last time. */
  lastError?: string
}

/** Keeps what the last call or exchange told. */
export interface AvailabilityKeeper {
  now(): EtcdAvailability
  worked(): void
  failed(reason: string): void
  /** Calls back at each change. @returns to be called to end it */
  listen(listener: (availability: EtcdAvailability) => void): () => void
}

/** Nothing was tried yet: it counts as not available, since now. */
export function createAvailability(clock: Clock): AvailabilityKeeper {
  const listeners = new Set<(availability: EtcdAvailability) => void>()
  let state: EtcdAvailability = { available: false, sinceMs: clock.monotonicMs() }

  const change = (available: boolean): void => {
    if (state.available === available) return
    state = { ...state, available, sinceMs: clock.monotonicMs() }
    for (const listener of [...listeners]) listener(state)
  }
  return {
    now: () => state,
    worked: () => change(true),
    failed(lastError) {
      state = { ...state, lastError }
      change(false)
    },
    listen(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}
