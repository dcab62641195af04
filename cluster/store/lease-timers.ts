import type { Clock, Timer } from '../../base/clock.ts'
import type { Lease } from './state.ts'

/** How long each lease still has. One timer serves them all, because renewals are many. */
export interface LeaseTimers {
  /** Starts a lease's time. */
  start(lease: Lease): void
  /** Starts it again; false when the lease is not known or its time has run out. */
  renew(lease: string): boolean
  /** Forgets a lease. */
  stop(lease: string): void
  close(): void
}

interface Running {
  ttlMs: number
  deadlineMs: number
}

/** @param expire called once for a lease whose time has run out; it can't be renewed any more */
export function createLeaseTimers(expire: (lease: string) => void, clock: Clock): LeaseTimers {
  const running = new Map<string, Running>()
  let timer: Timer | undefined
  let timerAtMs = Number.POSITIVE_INFINITY

  const arm = (atMs: number): void => {
    if (atMs >= timerAtMs) return
    timer?.cancel()
    timerAtMs = atMs
    timer = clock.setTimer(Math.max(0, atMs - clock.monotonicMs()), fire)
  }
  const fire = (): void => {
    timerAtMs = Number.POSITIVE_INFINITY
    const nowMs = clock.monotonicMs()
    let nextMs = Number.POSITIVE_INFINITY
    for (const [lease, { deadlineMs }] of [...running]) {
      if (deadlineMs > nowMs) {
        nextMs = Math.min(nextMs, deadlineMs)
      } else {
        running.delete(lease)
        expire(lease)
      }
    }
    if (nextMs !== Number.POSITIVE_INFINITY) arm(nextMs)
  }

  return {
    start({ id, ttlMs }) {
      const deadlineMs = clock.monotonicMs() + ttlMs
      running.set(id, { ttlMs, deadlineMs })
      arm(deadlineMs)
    },
    renew(lease) {
      const found = running.get(lease)
      if (found === undefined || found.deadlineMs <= clock.monotonicMs()) return false
      // The timer that is set fires too early now; it then finds the next deadline by itself.
      found.deadlineMs = clock.monotonicMs() + found.ttlMs
      return true
    },
    stop(lease) {
      running.delete(lease)
    },
    close() {
      timer?.cancel()
      running.clear()
    },
  }
}
