import { backoffMs } from '../../base/backoff.ts'
import { sleep, withTimeout } from '../../base/clock.ts'
import { failure, isFailure, messageOf } from '../../base/errors.ts'
import { createEntryTable, type EntryTable } from './entry-table.ts'
import type { Store, WatchBatch } from './store.ts'
import type { StoreComponents } from './store-core.ts'

/** How old the answers are while the store can't be reached. */
export interface Staleness {
  /** Monotonic time since when the store has said that it is not available. */
  sinceMs: number
  /** The revision of which the answers show the state. */
  revision: number
}

/** A store that still answers reads when it can't be reached. */
export interface MirroredStore extends Store {
  /** Up to which revision the mirror is; undefined while there is none. */
  mirrorRevision(): number | undefined
  /** Undefined while answers are the newest. */
  staleSince(): Staleness | undefined
  /** Calls back when answers become old, and when they are the newest again. @returns to end it */
  onStale(listener: (staleness: Staleness | undefined) => void): () => void
}

/** How often a mirror that broke is made again. */
const again = { firstMs: 200, mostMs: 10_000 }
/** Once the store was away, a reader waits so long for it to be back before it gets an old answer. */
const patienceMs = 250

/** Everything there was at one revision, or later. */
interface Mirror {
  table: EntryTable
  revision: number
}

/**
 * Keeps all entries of `store` in memory and answers `get`, `list` and `revision` from there when,
 * and only when, the store says that it is `unavailable`. Writes, leases and watches need the store
 * itself. Without a mirror, at the start or when it would pass `limits.storeBytes`, the store's
 * error stands. Closing closes the store too.
 */
export function createMirroredStore(store: Store, components: StoreComponents): MirroredStore {
  const { clock } = components
  const closing = new AbortController()
  const listeners = new Set<(staleness: Staleness | undefined) => void>()
  let mirror: Mirror | undefined
  let awaySinceMs: number | undefined
  let probe: Promise<void> | undefined

  const staleSince = (): Staleness | undefined =>
    awaySinceMs === undefined || mirror === undefined
      ? undefined
      : { sinceMs: awaySinceMs, revision: mirror.revision }
  const setAway = (sinceMs: number | undefined): void => {
    if ((awaySinceMs === undefined) === (sinceMs === undefined)) return
    awaySinceMs = sinceMs
    for (const listener of [...listeners]) listener(staleSince())
  }
  /** Whether the store, which was away, is back; many readers share one question. */
  const isBack = async (): Promise<boolean> => {
    probe ??= store
      .revision()
      .then(() => setAway(undefined))
      .catch(() => {})
      .finally(() => {
        probe = undefined
      })
    const tooLate = (): Error => new Error('not yet')
    await withTimeout(clock, patienceMs, probe, tooLate).catch(() => {})
    return awaySinceMs === undefined
  }
  const read = async <Result>(
    ask: () => Promise<Result>,
    remember: (mirror: Mirror) => Result,
  ): Promise<Result> => {
    if (awaySinceMs !== undefined && mirror !== undefined && !closing.signal.aborted) {
      if (!(await isBack()) && mirror !== undefined) return remember(mirror)
    }
    try {
      const result = await ask()
      setAway(undefined)
      return result
    } catch (error) {
      if (!isFailure(error, 'unavailable') || closing.signal.aborted) throw error
      setAway(clock.monotonicMs())
      if (mirror === undefined) throw error
      return remember(mirror)
    }
  }
  follow(store, components, closing.signal, next => {
    mirror = next
  })

  return {
    get: key =>
      read(
        () => store.get(key),
        ({ table, revision }) => ({ entry: table.get(key), revision }),
      ),
    list: (prefix, options = {}) =>
      read(
        () => store.list(prefix, options),
        ({ table, revision }) => ({ ...table.page(prefix, options), revision }),
      ),
    revision: () =>
      read(
        () => store.revision(),
        ({ revision }) => revision,
      ),
    transaction: transaction => store.transaction(transaction),
    watch: (prefix, options) => store.watch(prefix, options),
    grantLease: ttlMs => store.grantLease(ttlMs),
    renewLease: lease => store.renewLease(lease),
    revokeLease: lease => store.revokeLease(lease),
    close() {
      closing.abort()
      return store.close()
    },
    mirrorRevision: () => mirror?.revision,
    staleSince,
    onStale(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}

/** Keeps a mirror until the signal is aborted; one that broke serves until the next is whole. */
async function follow(
  store: Store,
  { clock, limits, log }: StoreComponents,
  signal: AbortSignal,
  show: (mirror: Mirror | undefined) => void,
): Promise<void> {
  let failures = 0
  while (!signal.aborted) {
    try {
      const table = createEntryTable()
      const { entries, revision } = await store.list('')
      for (const entry of entries) table.set(entry)
      assertBounded(table, limits.storeBytes)
      const mirror = { table, revision }
      show(mirror)
      failures = 0
      for await (const batch of store.watch('', { afterRevision: revision, signal })) {
        apply(mirror, batch)
        assertBounded(table, limits.storeBytes)
      }
    } catch (error) {
      if (isFailure(error, 'storeFull')) show(undefined)
      log.debug({ error: messageOf(error) }, 'the mirror of the store broke, it is made again')
      await sleep(clock, backoffMs(again, ++failures), signal).catch(() => {})
    }
  }
}

function apply(mirror: Mirror, { events, revision }: WatchBatch): void {
  for (const { key, entry } of events) {
    if (entry === undefined) mirror.table.remove(key)
    else mirror.table.set(entry)
  }
  mirror.revision = revision
}

/** Hosts that write at once may pass the store's own bound a little; a mirror takes no more. */
function assertBounded(table: EntryTable, limitBytes: number): void {
  if (table.bytes() > limitBytes * 1.1) throw failure('storeFull', { limitBytes })
}
