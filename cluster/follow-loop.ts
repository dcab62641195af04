import { type Clock, sleep } from '../base/clock.ts'

/** Something that goes on until it is stopped. */
export interface Following {
  /** Resolves when it has ended. */
  stop(): Promise<void>
}

/** How one follows. */
export interface FollowLoopInit {
  /** Lists, then watches until the watch breaks or the signal is aborted. */
  once(signal: AbortSignal): Promise<void>
  onBroken(error: unknown): void
  /** The wait after a watch broke, before all is listed anew. */
  againMs: number
}

/** Follows on and on: whatever breaks is begun again, a little later. */
export function startFollowLoop(init: FollowLoopInit, clock: Clock): Following {
  const stopping = new AbortController()
  const { signal } = stopping
  const run = async (): Promise<void> => {
    while (!signal.aborted) {
      await init.once(signal).catch(error => {
        if (!signal.aborted) init.onBroken(error)
      })
      await sleep(clock, init.againMs, signal).catch(() => {})
    }
  }
  const running = run()
  return {
    async stop() {
      stopping.abort()
      await running
    },
  }
}
