import type { Clock } from '../../base/clock.ts'
import { type Log, messageOf } from '../../base/log.ts'
import { type Following, startFollowLoop } from '../follow-loop.ts'
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
): Following {
  return startFollowLoop(
    {
      async once(signal) {
        const { entries, revision } = await store.list(prefix)
        if (signal.aborted) return
        follower.onListed(entries, revision)
        for await (const { events } of store.watch(prefix, { afterRevision: revision, signal })) {
          for (const event of events) follower.onChanged(event.key, event.entry, event.revision)
        }
      },
      onBroken(error) {
        log.debug({ prefix, error: messageOf(error) }, 'a watch broke, listing anew')
        follower.onBroken?.(error)
      },
      againMs,
    },
    clock,
  )
}
