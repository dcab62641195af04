import type { Clock, Timer } from '../../base/clock.ts'
import { assert, failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { History } from './history.ts'
import { firstRevision } from './state.ts'
import type { WatchBatch, WatchOptions } from './store.ts'

/**
 * A watcher that got nothing for this long is told how far the store is, so that it can go on
 * there.
 */
const progressMs = 10_000

/** What a hub needs. */
export interface WatchHubComponents {
  clock: Clock
  limits: Limits
  history: Pick<History, 'read'>
}

/** Hands every revision to those who watch its keys. */
export interface WatchHub {
  /** The next revision; called in order, after the state shows it and the history has it. */
  publish(batch: WatchBatch): void
  watch(prefix: string, options: WatchOptions): AsyncIterable<WatchBatch>
  /** Ends every watch with `reason`. */
  close(reason: Error): void
}

interface Watcher {
  prefix: string
  waiting: WatchBatch[]
  waitingEvents: number
  /** The last revision that was put into `waiting`. */
  toldRevision: number
  wake: () => void
  aborted: boolean
  error?: Error
}

/** @param newest the revision of the state at this moment */
export function createWatchHub(newest: number, components: WatchHubComponents): WatchHub {
  const { clock, limits, history } = components
  const watchers = new Set<Watcher>()
  let newestRevision = newest
  let closedWith: Error | undefined
  let progressTimer: Timer | undefined

  const end = (watcher: Watcher, error: Error): void => {
    watcher.error = error
    watcher.waiting = []
    watchers.delete(watcher)
    watcher.wake()
  }

  const offer = (watcher: Watcher, batch: WatchBatch): void => {
    const events = watcher.waitingEvents + batch.events.length
    // One large revision alone is no slowness.
    if (watcher.waiting.length > 0 && events > limits.watchBacklog) {
      end(watcher, failure('watcherTooSlow', { limit: limits.watchBacklog }))
      return
    }
    watcher.waiting.push(batch)
    watcher.waitingEvents = events
    watcher.toldRevision = batch.revision
    watcher.wake()
  }

  const tellProgress = (): void => {
    progressTimer = undefined
    for (const watcher of watchers) {
      if (watcher.toldRevision === newestRevision || watcher.waiting.length > 0) continue
      offer(watcher, { events: [], revision: newestRevision })
    }
  }

  /** The revisions up to `last` that were there before the watch began. */
  async function* replay(
    watcher: Watcher,
    after: number,
    last: number,
  ): AsyncGenerator<WatchBatch> {
    let at = Math.max(after, firstRevision)
    let told = at
    while (at < last) {
      const page = await history.read(at, last)
      assert(page.length > 0, `the history goes from ${at} to ${last}`)
      for (const batch of page) {
        if (watcher.aborted || watcher.error !== undefined) return
        at = batch.revision
        const own = filter(batch, watcher.prefix)
        if (own === undefined) continue
        told = at
        yield own
      }
      if (watcher.aborted || watcher.error !== undefined) return
    }
    if (told < last) yield { events: [], revision: last }
  }

  async function* live(watcher: Watcher): AsyncGenerator<WatchBatch> {
    for (;;) {
      if (watcher.aborted) return
      if (watcher.error !== undefined) throw watcher.error
      const batch = watcher.waiting.shift()
      if (batch === undefined) {
        await new Promise<void>(resolve => {
          watcher.wake = resolve
        })
        continue
      }
      watcher.waitingEvents -= batch.events.length
      yield batch
    }
  }

  async function* watch(prefix: string, options: WatchOptions): AsyncGenerator<WatchBatch> {
    const { afterRevision, signal } = options
    if (closedWith !== undefined) throw closedWith
    if (signal.aborted) return
    if (afterRevision > newestRevision) {
      throw failure('revisionUnknown', { revision: afterRevision, newest: newestRevision })
    }
    if (watchers.size >= limits.watches) {
      throw failure('tooMany', { limit: limits.watches, what: 'watches' })
    }
    const last = newestRevision
    const watcher: Watcher = {
      prefix,
      waiting: [],
      waitingEvents: 0,
      toldRevision: last,
      wake: () => {},
      aborted: false,
    }
    const onAbort = (): void => {
      watcher.aborted = true
      watcher.wake()
    }
    // From here on new revisions wait in the watcher, while the past is read.
    watchers.add(watcher)
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      yield* replay(watcher, afterRevision, last)
      yield* live(watcher)
    } finally {
      watchers.delete(watcher)
      signal.removeEventListener('abort', onAbort)
    }
  }

  return {
    publish(batch) {
      newestRevision = batch.revision
      let left = false
      for (const watcher of watchers) {
        const own = filter(batch, watcher.prefix)
        if (own === undefined) left = true
        else offer(watcher, own)
      }
      if (left) progressTimer ??= clock.setTimer(progressMs, tellProgress)
    },
    watch,
    close(reason) {
      closedWith = reason
      progressTimer?.cancel()
      for (const watcher of watchers) end(watcher, reason)
    },
  }
}

/** The part of a batch under `prefix`; undefined when there is none. */
function filter(batch: WatchBatch, prefix: string): WatchBatch | undefined {
  const events = batch.events.filter(event => event.key.startsWith(prefix))
  if (events.length === 0) return undefined
  return events.length === batch.events.length ? batch : { events, revision: batch.revision }
}
