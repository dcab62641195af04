import { failure } from '../../base/errors.ts'
import { firstRevision } from './state.ts'
import type { WatchBatch } from './store.ts'

/** Past revisions, for watches that begin in the past. */
export interface History {
  add(batch: WatchBatch): void
  /**
   * Every revision after `afterRevision` up to `lastRevision`, or the first of them.
   * @throws revisionCompacted
   */
  read(afterRevision: number, lastRevision: number): Promise<WatchBatch[]>
}

/**
 * Fails unless everything after `afterRevision` is still kept.
 * @param compactedRevision the newest revision that is no longer kept
 */
export function assertKept(afterRevision: number, compactedRevision: number): void {
  // The first revision is the empty store: there is no event of it that a watcher could miss.
  if (Math.max(afterRevision, firstRevision) >= compactedRevision) return
  throw failure('revisionCompacted', { revision: afterRevision, oldest: compactedRevision + 1 })
}

/** Keeps the newest `capacity` revisions in memory. @param before the one before the first */
export function createHistory(capacity: number, before = firstRevision): History {
  const batches: WatchBatch[] = []
  let compactedRevision = before

  return {
    add(batch) {
      batches.push(batch)
      if (batches.length <= capacity) return
      compactedRevision = batches.shift()?.revision ?? compactedRevision
    },
    async read(afterRevision, lastRevision) {
      assertKept(afterRevision, compactedRevision)
      const from = Math.max(0, afterRevision - compactedRevision)
      return batches.slice(from, lastRevision - compactedRevision)
    },
  }
}
