import type { Clock } from '../../base/clock.ts'

/** A signal that is aborted after a while, or when another one is. */
export interface Deadline {
  signal: AbortSignal
  /** To be called when what it was for is over. */
  clear(): void
}

/** @param timeoutMs when it is aborted, with an error that says so */
export function startDeadline(clock: Clock, timeoutMs: number, signal?: AbortSignal): Deadline {
  const controller = new AbortController()
  const timer = clock.setTimer(timeoutMs, () => {
    controller.abort(new Error(`it took longer than ${timeoutMs} ms`))
  })
  const onAbort = (): void => controller.abort(signal?.reason)
  if (signal?.aborted) onAbort()
  signal?.addEventListener('abort', onAbort, { once: true })
  return {
    signal: controller.signal,
    clear() {
      timer.cancel()
      signal?.removeEventListener('abort', onAbort)
    },
  }
}
