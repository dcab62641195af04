import { assert, failure } from '../../base/errors.ts'
import { copyJson, type JsonValue } from '../../base/json.ts'
import type { Limits } from '../../base/limits.ts'
import { entryBytes } from './entry-table.ts'
import type { Change, Lease, StateReader } from './state.ts'
import type { Compare, Entry, Transaction, TransactionResult, WatchEvent } from './store.ts'

/** What a decision says: the answer to the caller, and the step to take if there is one. */
export interface Decision<Result> {
  result: Result
  change?: Change
}

type PreparedOperation =
  | { kind: 'put'; key: string; value: JsonValue; lease: string | undefined }
  | { kind: 'delete'; key: string }
  | { kind: 'deletePrefix'; prefix: string }

/** A transaction that was checked and no longer shares memory with the caller. */
export interface PreparedTransaction {
  compare: readonly Compare[]
  operations: readonly PreparedOperation[]
  /** What its keys and values weigh. */
  bytes: number
}

/** Fails an assertion unless `key` is one: 1 to storeKeyBytes characters of printable ASCII. */
export function assertKey(key: string, limits: Limits): void {
  assert(key.length > 0, 'a key is not empty')
  assertPrefix(key, limits)
}

/** Fails an assertion unless `prefix` can begin a key. */
export function assertPrefix(prefix: string, limits: Limits): void {
  assert(/^[\x20-\x7e]*$/.test(prefix), `key ${JSON.stringify(prefix)} is printable ASCII`)
  assert(prefix.length <= limits.storeKeyBytes, `a key has at most ${limits.storeKeyBytes} bytes`)
}

/**
 * Checks a transaction and copies it.
 * @throws storeRequestTooLarge
 */
export function prepareTransaction(
  { compare, operations }: Transaction,
  limits: Limits,
): PreparedTransaction {
  const most = limits.transactionOperations
  if (compare.length > most || operations.length > most) {
    throw failure('storeRequestTooLarge', { limit: most, what: 'compares and as many operations' })
  }
  let bytes = 0
  const prepared = operations.map((operation): PreparedOperation => {
    if ('put' in operation) {
      assertKey(operation.put, limits)
      const { copy, text } = copyJson(operation.value)
      bytes += operation.put.length + Buffer.byteLength(text)
      return { kind: 'put', key: operation.put, value: copy, lease: operation.lease }
    }
    const key = 'delete' in operation ? operation.delete : operation.deletePrefix
    assertKey(key, limits)
    bytes += key.length
    return 'delete' in operation ? { kind: 'delete', key } : { kind: 'deletePrefix', prefix: key }
  })
  for (const { key } of compare) {
    assertKey(key, limits)
    bytes += key.length
  }
  if (bytes > limits.transactionBytes) {
    throw failure('storeRequestTooLarge', { limit: limits.transactionBytes, what: 'bytes' })
  }
  assertDistinct(prepared)
  return { compare: compare.map(one => ({ ...one })), operations: prepared, bytes }
}

/** etcd refuses a key that is put twice, or put and deleted, in one transaction: so do we. */
function assertDistinct(operations: readonly PreparedOperation[]): void {
  const puts = new Set<string>()
  for (const operation of operations) {
    if (operation.kind !== 'put') continue
    assert(!puts.has(operation.key), `${operation.key} is put once in a transaction`)
    puts.add(operation.key)
  }
  for (const operation of operations) {
    if (operation.kind === 'put') continue
    const clash =
      operation.kind === 'delete'
        ? puts.has(operation.key)
        : [...puts].some(key => key.startsWith(operation.prefix))
    assert(!clash, 'a key is not both put and deleted in a transaction')
  }
}

function holds(compare: Compare, entry: Entry | undefined): boolean {
  return 'modRevision' in compare
    ? compare.modRevision === (entry?.modRevision ?? 0)
    : compare.createRevision === (entry?.createRevision ?? 0)
}

/**
 * What a transaction does to a state. Pure: nothing changes here.
 * @throws leaseNotFound, storeFull
 */
export function decideTransaction(
  state: StateReader,
  transaction: PreparedTransaction,
  limits: Limits,
): Decision<TransactionResult> {
  const current = transaction.compare.map(({ key }) => state.get(key))
  if (!transaction.compare.every((compare, index) => holds(compare, current[index]))) {
    return { result: { succeeded: false, revision: state.revision(), current } }
  }
  const revision = state.revision() + 1
  const events = new Map<string, WatchEvent>()
  for (const operation of transaction.operations) {
    for (const event of eventsOf(operation, state, revision)) events.set(event.key, event)
  }
  if (events.size === 0) {
    return { result: { succeeded: true, revision: state.revision(), current: [] } }
  }
  const change = { revision, events: Object.freeze([...events.values()]) }
  assertRoom(state, change.events, limits)
  return { result: { succeeded: true, revision, current: [] }, change }
}

function eventsOf(
  operation: PreparedOperation,
  state: StateReader,
  revision: number,
): WatchEvent[] {
  if (operation.kind === 'deletePrefix') {
    return state.withPrefix(operation.prefix).map(entry => deletion(entry, revision))
  }
  const previous = state.get(operation.key)
  if (operation.kind === 'delete') {
    return previous === undefined ? [] : [deletion(previous, revision)]
  }
  const { key, value, lease } = operation
  if (lease !== undefined && !state.hasLease(lease)) throw failure('leaseNotFound', { lease })
  const createRevision = previous?.createRevision ?? revision
  const entry: Entry = Object.freeze({
    key,
    value,
    createRevision,
    modRevision: revision,
    ...(lease === undefined ? {} : { lease }),
  })
  const event = { type: 'put', key, entry, revision } as const
  return [Object.freeze(previous === undefined ? event : { ...event, previous })]
}

function deletion(previous: Entry, revision: number): WatchEvent {
  return Object.freeze({ type: 'delete', key: previous.key, previous, revision })
}

/** A full store still takes what makes it smaller. */
function assertRoom(state: StateReader, events: readonly WatchEvent[], limits: Limits): void {
  let growth = 0
  for (const { entry, previous } of events) {
    growth += (entry ? entryBytes(entry) : 0) - (previous ? entryBytes(previous) : 0)
  }
  if (growth > 0 && state.bytes() + growth > limits.storeBytes) {
    throw failure('storeFull', { limitBytes: limits.storeBytes })
  }
}

/**
 * What granting a lease does to a state.
 * @throws tooMany
 */
export function decideGrant(state: StateReader, lease: Lease, limits: Limits): Decision<string> {
  if (state.leaseCount() >= limits.leases) {
    throw failure('tooMany', { limit: limits.leases, what: 'leases' })
  }
  assert(!state.hasLease(lease.id), `lease ${lease.id} is new`)
  return {
    result: lease.id,
    change: { revision: state.revision(), events: [], granted: Object.freeze(lease) },
  }
}

/**
 * What the end of a lease does to a state: its keys go in one revision.
 * @throws leaseNotFound
 */
export function decideEnd(state: StateReader, lease: string): Decision<undefined> {
  if (!state.hasLease(lease)) throw failure('leaseNotFound', { lease })
  const entries = state.withLease(lease)
  const revision = state.revision() + (entries.length > 0 ? 1 : 0)
  const events = Object.freeze(entries.map(entry => deletion(entry, revision)))
  return { result: undefined, change: { revision, events, ended: lease } }
}
