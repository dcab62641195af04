import type { JsonValue } from '../../base/json.ts'

/**
 * One key and its value. Entries and their values are frozen: they may be kept and shared, never
 * changed. Revisions as in etcd (etcd.io/docs/v3.5/learning/api, "Key-Value pair").
 */
export interface Entry {
  readonly key: string
  readonly value: JsonValue
  /** The store's revision at which the key was last created; stays while the key is overwritten. */
  readonly createRevision: number
  /** The store's revision of the last write to the key. */
  readonly modRevision: number
  /** The lease whose end deletes the key. */
  readonly lease?: string
}

/** One page of a list. */
export interface Listing {
  /** In rising order of their keys' bytes. */
  readonly entries: readonly Entry[]
  /** The store's revision of this read: a watch after it misses nothing. */
  readonly revision: number
  /** Whether keys were left out because of the limit; go on with `afterKey` = the last key here. */
  readonly more: boolean
}

/** How much of a list is wanted. */
export interface ListOptions {
  /** At most so many entries; all of them without it. */
  limit?: number
  /** Only keys that sort after this one: the last key of the page before. Pages are read
  /** separately,
   * so a page shows the store as it is when that page is read. */
  afterKey?: string
}

/** Holds when the key's revision is exactly this one; 0 means that the key is absent. */
export type Compare = { key: string; modRevision: number } | { key: string; createRevision: number }

/** One write. A put without `lease` detaches the key from the lease that it had. */
export type Operation =
  | { put: string; value: JsonValue; lease?: string }
  | { delete: string }
  | { deletePrefix: string }

/** Writes that happen together, as one revision, if every compare holds; else nothing happens. */
export interface Transaction {
  compare: readonly Compare[]
  /** No key may be put twice, or put and deleted (etcd refuses that too). */
  operations: readonly Operation[]
}

/** How a transaction ended. */
export interface TransactionResult {
  readonly succeeded: boolean
  /**
   * The store's revision after it. When it succeeded and changed something this is the modRevision
   * of every key that it put; deleting what is not there changes nothing.
   */
  readonly revision: number
  /** When it failed: the entry of each compared key, in the order of the compares. Else empty. */
  readonly current: readonly (Entry | undefined)[]
}

/** One key that changed. */
export interface WatchEvent {
  readonly type: 'put' | 'delete'
  readonly key: string
  /** What is there now; absent after a delete. */
  readonly entry?: Entry
  /** What was there before; absent when the key is new. */
  readonly previous?: Entry
  readonly revision: number
}

/**
 * All events of one revision that the watcher asked for; without events it says how far the watch
 * is.
 */
export interface WatchBatch {
  readonly events: readonly WatchEvent[]
  /** Everything up to this revision has been delivered. */
  readonly revision: number
}

/** Where a watch begins and how it is ended. */
export interface WatchOptions {
  /**
   * A revision that this store has told before; the first event is one after it. 0 is the
   * beginning: it works only as long as the whole history is kept.
   */
  afterRevision: number
  /** Ends the iteration, without an error. */
  signal: AbortSignal
}

/**
 * Keys with JSON values under one revision that counts every change (1 is the empty store).
 *
 * Keys are printable ASCII, at most `limits.storeKeyBytes`, so that every implementation sorts them
 * alike; a prefix is the beginning of a key, '' is all. Misuse (bad keys, values that JSON can't
 * say) fails an assertion. The interface asks for nothing that etcd v3 lacks: kv, txn, lease and
 * watch.
 *
 * Every method throws `unavailable` when the store is closed or its disk fails. A write that ended
 * so may or may not have happened: read again.
 */
export interface Store {
  /** Reads one key, at the newest revision. */
  get(key: string): Promise<{ readonly entry: Entry | undefined; readonly revision: number }>

  /** Reads all keys that begin with `prefix`, as one consistent state. */
  list(prefix: string, options?: ListOptions): Promise<Listing>

  /**
   * Compares, then writes: all or nothing, and durable when it resolves. Transactions that have a
   * key in common take effect in the order in which they were called here.
   * @throws storeRequestTooLarge over `limits.transactionOperations` or `limits.transactionBytes`,
   *   leaseNotFound when a put names a lease that has ended, storeFull, unavailable
   */
  transaction(transaction: Transaction): Promise<TransactionResult>

  /**
   * Every change to keys under `prefix` after a revision: without gaps, without duplicates, in
   * order of revision. The watch begins with the first `next()`. Iterating throws
   * `revisionCompacted` when that history is gone, `revisionUnknown` when this store never told
   * that revision, `watcherTooSlow` when more than `limits.watchBacklog` events wait: then list
   * anew. Breaking out of the loop or aborting the signal ends it.
   */
  watch(prefix: string, options: WatchOptions): AsyncIterable<WatchBatch>

  /**
   * Makes a lease that ends when it is not renewed for `ttlMs` (1 ms to a day; etcd counts whole
   * seconds and has a minimum of its own, so an implementation may give more, never less).
   * @returns the lease's id
   * @throws tooMany when `limits.leases` are held
   */
  grantLease(ttlMs: number): Promise<string>

  /**
   * Starts the lease's time again.
   * @throws leaseNotFound when it has ended
   */
  renewLease(lease: string): Promise<void>

  /**
   * Ends a lease now and deletes its keys, as one revision, just as its expiry does.
   * @throws leaseNotFound when it has ended
   */
  revokeLease(lease: string): Promise<void>

  /** The newest revision. */
  revision(): Promise<number>

  /**
   * Ends watches with `unavailable`, waits for writes under way and lets go of files and timers.
   */
  close(): Promise<void>
}
