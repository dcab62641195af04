/** A pending timer; cancelling one that has fired does nothing. */
export interface Timer {
  cancel(): void
}

/**
 * The only source of time. Code outside `base/` never calls Date, setTimeout or performance itself
 * (test/tidy.test.ts holds this), so that a test or the simulation can drive time by hand.
 */
export interface Clock {
  /** Wall time, in milliseconds since the Unix epoch. May jump; only for timestamps that people read. */
  wallMs(): number
  /** Milliseconds since some fixed moment; never goes backwards. For durations and deadlines. */
  monotonicMs(): number
  /** Calls back once, after at least `delayMs`. */
  setTimer(delayMs: number, callback: () => void): Timer
}

/** The machine's clock. */
export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  setTimer(delayMs, callback) {
    const handle = setTimeout(callback, delayMs)
    return { cancel: () => clearTimeout(handle) }
  },
}

/** An RFC 3339 timestamp in UTC with whole seconds, as Kubernetes writes `creationTimestamp`. */
export function timestamp(clock: Clock): string {
  return `${new Date(clock.wallMs()).toISOString().slice(0, 19)}Z`
}

/** An RFC 3339 timestamp in UTC with milliseconds, for measurements such as boot timings. */
export function preciseTimestamp(clock: Clock): string {
  return new Date(clock.wallMs()).toISOString()
}

/** Resolves after `delayMs`; rejects with the signal's reason as soon as the signal is aborted. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason)
    const onAbort = () => {
      timer.cancel()
      reject(signal?.reason)
    }
    const timer = clock.setTimer(delayMs, () => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    })
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}

/**
 * Settles as `promise` does, or rejects with `onTimeout()` after `timeoutMs`, whichever is first.
 * The work behind the promise is not stopped by this: hand it a signal where that matters.
 */
export async function withTimeout<T>(
  clock: Clock,
  timeoutMs: number,
  promise: Promise<T>,
  onTimeout: () => Error,
): Promise<T> {
  let timer: Timer | undefined
  const timeout = new Promise<never>((_, reject) => {
    timer = clock.setTimer(timeoutMs, () => reject(onTimeout()))
  })
  try {
    return await Promise.race([promise, timeout])
  } finally {
    timer?.cancel()
  }
}
