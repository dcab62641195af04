import type { Limits } from '../../base/limits.ts'
import type { ManualClock } from '../../base/manual-clock.ts'
import type { Store, WatchBatch } from './store.ts'

/** What each test of the suite works with. */
export interface Bench {
  readonly store: Store
  readonly clock: ManualClock
  /** Opens an empty store instead, with other limits. */
  restrict(limits: Partial<Limits>): Promise<Store>
  /** Closes the store and opens it again; undefined where nothing lasts. */
  readonly restart: (() => Promise<Store>) | undefined
}

/** Writes one key and answers with the revision. */
export async function put(
  store: Store,
  key: string,
  value: string | number,
  lease?: string,
): Promise<number> {
  const operation = lease === undefined ? { put: key, value } : { put: key, value, lease }
  const { revision } = await store.transaction({ compare: [], operations: [operation] })
  return revision
}

/** Deletes one key and answers with the revision. */
export async function remove(store: Store, key: string): Promise<number> {
  const { revision } = await store.transaction({ compare: [], operations: [{ delete: key }] })
  return revision
}

/**
 * Watches until everything up to `untilRevision` has been seen; batches without events are left
 * out.
 */
export async function collect(
  store: Store,
  prefix: string,
  afterRevision: number,
  untilRevision: number,
): Promise<WatchBatch[]> {
  const batches: WatchBatch[] = []
  if (afterRevision >= untilRevision) return batches
  const { signal } = new AbortController()
  for await (const batch of store.watch(prefix, { afterRevision, signal })) {
    if (batch.events.length > 0) batches.push(batch)
    if (batch.revision >= untilRevision) break
  }
  return batches
}
