import { type Clock, sleep } from '../../base/clock.ts'
import { type Log, messageOf } from '../../base/log.ts'
import type { Entry, Store } from './store.ts'

/** What following needs. */
export interface FollowPrefixComponents {
  store: Store
  clock: Clock
  log: Log
}

/** Who follows. */
export interface Follower {
  /** All that is there: at the start, and again whenever the watch broke. */
  onListed(entries: readonly Entry[], revision: number): void
  /** One key as it is now; without an entry it is gone. */
  onChanged(key: string, entry: Entry | undefined, revision: number): void
  /** The watch broke: what is known may be old until `onListed`. */
  onBroken?(error: unknown): void
}

/** A follower that goes on until it is stopped. */
export interface PrefixFollowing {
  stop(): Promise<void>
}

/** The wait after a watch broke, before all is listed anew. */
const againMs = 500

/**
 * Tells all keys under a prefix and every change to them, for as long as it takes: level-triggered
 * work only, because between a watch that broke and the next list changes may be passed over.
 */
export function followPrefix(
  prefix: string,
  follower: Follower,
  { store, clock, log }: FollowPrefixComponents,
): PrefixFollowing {
  const stopping = new AbortController()
  const { signal } = stopping
  const once = async (): Promise<void> => {
    const { entries, revision } = await store.list(prefix)
    if (signal.aborted) return
    follower.onListed(entries, revision)
    for await (const batch of store.watch(prefix, { afterRevision: revision, signal })) {
      for (const event of batch.events) follower.onChanged(event.key, event.entry, event.revision)
    }
  }
  const run = async (): Promise<void> => {
    while (!signal.aborted) {
      await once().catch(error => {
        if (signal.aborted) return
        log.debug({ prefix, error: messageOf(error) }, 'a watch broke, listing anew')
        follower.onBroken?.(error)
      })
      await sleep(clock, againMs, signal).catch(() => {})
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
