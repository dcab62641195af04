import { assert, failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { EtcdConnection } from '../etcd/connection.ts'
import type { RpcOperation } from '../etcd/messages.ts'
import { etcdUnavailable, isRefusal, RpcFailure } from '../etcd/rpc-failure.ts'
import { createEtcdCodec, type EtcdCodec } from './etcd-codec.ts'
import { createEtcdFeed } from './etcd-feed.ts'
import { assertLease, createEtcdLeases } from './etcd-leases.ts'
import { createKeyOrder } from './etcd-order.ts'
import { reading, readRange, readRevision } from './etcd-range.ts'
import { createEtcdRoom } from './etcd-room.ts'
import { firstRevision } from './state.ts'
import type { Entry, Listing, ListOptions, Store, TransactionResult } from './store.ts'
import { type StoreComponents, storeUnavailable } from './store-core.ts'
import {
  assertKey,
  assertPrefix,
  type PreparedTransaction,
  prepareTransaction,
} from './transaction.ts'

/** Which etcd, and which part of it. */
export interface EtcdStoreInit {
  /** Shared with others; it stays the caller's to close, after the store. */
  connection: EtcdConnection
  /** Added to etcd's revisions, so that those we tell never go back (FleetRecord). */
  revisionBase: number
  /** Every key begins with it in etcd; `m/` without it. */
  prefix?: string
}

/** A store on etcd. */
export interface EtcdStore extends Store {
  /**
   * Resolves with the newest revision when all up to it was followed here: from then on watches
   * begin without asking etcd for the past.
   * @throws unavailable
   */
  followed(): Promise<number>
}

/** A write waits so long for its answer; an election of etcd takes less. */
const writeMs = 5_000
/** A list that takes longer than etcd keeps the state it shows is begun again so often. */
const listTries = 3

/**
 * The store of a fleet: etcd. It opens without waiting for etcd; while no endpoint answers, every
 * method throws `unavailable` after at most 5 s. Reads are linearizable. Transactions on the same
 * keys keep the order in which they were called. Every revision is followed over one watch (see
 * etcd-feed.ts), whatever the number of watches here.
 */
export function openEtcdStore(init: EtcdStoreInit, components: StoreComponents): EtcdStore {
  const { connection, revisionBase, prefix = 'm/' } = init
  const { limits } = components
  const codec = createEtcdCodec({ prefix, revisionBase })
  // etcd's first revision is the empty store; what was told before that was another store's.
  const oldestRevision = revisionBase > 0 ? codec.told(firstRevision) : firstRevision
  const feed = createEtcdFeed({ connection, codec, oldestRevision }, components)
  const room = createEtcdRoom({ connection, codec, feed }, limits)
  const leases = createEtcdLeases(connection, components)
  const order = createKeyOrder()
  let closing: Promise<void> | undefined

  const assertOpen = (): void => {
    if (closing !== undefined) throw storeUnavailable('it was closed', '')
  }
  const commit = async (prepared: PreparedTransaction): Promise<TransactionResult> => {
    const taken = await room.take(prepared)
    try {
      const result = await transact(connection, codec, prepared)
      taken.until(result.revision)
      feed.heard(result.revision)
      return result
    } catch (error) {
      taken.giveBack()
      throw error
    }
  }

  /** Every method begins and ends like this. */
  const guarded = async <Result>(work: () => Promise<Result>): Promise<Result> => {
    assertOpen()
    try {
      return await work()
    } catch (error) {
      throw outward(error, limits)
    }
  }

  return {
    get: key =>
      guarded(async () => {
        assertKey(key, limits)
        const answer = await connection.call('KV.Range', { key: codec.key(key) }, reading)
        const [found] = answer.entries
        const entry = found === undefined ? undefined : codec.entry(found)
        return { entry, revision: codec.told(answer.header.revision) }
      }),
    list: (under, options = {}) =>
      guarded(async () => {
        assertPrefix(under, limits)
        assert(options.limit === undefined || options.limit > 0, 'a page has a positive limit')
        return listWhole(connection, codec, under, options)
      }),
    transaction: transaction =>
      guarded(async () => {
        const prepared = prepareTransaction(transaction, limits)
        if (order.size() >= limits.storeWritesWaiting) {
          throw failure('tooMany', { limit: limits.storeWritesWaiting, what: 'writes that wait' })
        }
        const { written, compared } = touchedKeys(prepared)
        return order.run(written, () => commit(prepared), compared)
      }),
    watch(under, options) {
      assertPrefix(under, limits)
      return feed.watch(under, options)
    },
    grantLease: ttlMs => guarded(() => leases.grant(ttlMs)),
    renewLease: lease => guarded(() => leases.renew(lease)),
    revokeLease: lease => guarded(() => leases.revoke(lease)),
    revision: () => guarded(async () => codec.told(await readRevision(connection))),
    followed: () => guarded(() => feed.synchronize()),
    close() {
      closing ??= order.idle().then(() => feed.close(storeUnavailable('it was closed', '')))
      return closing
    },
  }
}

/** Reads all pages; begins again when etcd forgot the state meanwhile. */
async function listWhole(
  connection: EtcdConnection,
  codec: EtcdCodec,
  under: string,
  { limit, afterKey }: ListOptions,
): Promise<Listing> {
  const range = codec.range(under, afterKey)
  for (let attempt = 1; ; attempt++) {
    try {
      const entries: Entry[] = []
      let revision = 0
      let left = false
      for await (const page of readRange(connection, range, limit)) {
        for (const found of page.found) entries.push(codec.entry(found))
        revision = page.revision
        left = page.more
      }
      return { entries, revision: codec.told(revision), more: left }
    } catch (error) {
      if (attempt === listTries || !isRefusal(error, 'has been compacted')) throw error
    }
  }
}

/** What a transaction writes, undefined when that can't be told, and what it only looks at. */
function touchedKeys({ compare, operations }: PreparedTransaction) {
  const put = new Set<string>()
  for (const operation of operations) {
    if (operation.kind === 'deletePrefix') return { written: undefined, compared: [] }
    put.add(operation.key)
  }
  const compared = new Set(compare.map(({ key }) => key).filter(key => !put.has(key)))
  return { written: [...put], compared: [...compared] }
}

async function transact(
  connection: EtcdConnection,
  codec: EtcdCodec,
  prepared: PreparedTransaction,
): Promise<TransactionResult> {
  const { compare, operations } = prepared
  const request = {
    compare: compare.map(codec.compare),
    success: operations.map(operation => toRpc(codec, operation)),
    failure: compare.map(({ key }) => ({ range: { key: codec.key(key) } })),
  }
  const repeatable = operations.length === 0
  try {
    const answer = await connection.call('KV.Txn', request, { repeatable, timeoutMs: writeMs })
    const revision = codec.told(answer.header.revision)
    if (answer.succeeded) return { succeeded: true, revision, current: [] }
    const current = answer.responses.map(({ range }) => {
      const found = range?.entries[0]
      return found === undefined ? undefined : codec.entry(found)
    })
    return { succeeded: false, revision, current }
  } catch (error) {
    if (isRefusal(error, 'lease not found'))
      throw failure('leaseNotFound', { lease: leasesOf(prepared) })
    throw error
  }
}

function toRpc(
  codec: EtcdCodec,
  operation: PreparedTransaction['operations'][number],
): RpcOperation {
  if (operation.kind === 'delete') return { delete: { key: codec.key(operation.key) } }
  if (operation.kind === 'deletePrefix') return { delete: codec.range(operation.prefix) }
  const { key, value, lease } = operation
  const put = { key: codec.key(key), value: Buffer.from(JSON.stringify(value)) }
  if (lease === undefined) return { put }
  assertLease(lease)
  return { put: { ...put, lease } }
}

/** etcd does not say which one it misses. */
function leasesOf({ operations }: PreparedTransaction): string {
  const leases = operations.flatMap(one => (one.kind === 'put' ? (one.lease ?? []) : []))
  return [...new Set(leases)].join(' or ')
}

/** What etcd and the way to it said, as the table has it. */
function outward(error: unknown, limits: Limits): unknown {
  if (!(error instanceof RpcFailure)) return error
  if (isRefusal(error, 'database space exceeded')) {
    return failure('storeFull', { limitBytes: limits.storeBytes }, { cause: error })
  }
  if (isRefusal(error, 'request is too large')) {
    const values = { limit: limits.transactionBytes, what: 'bytes' }
    return failure('storeRequestTooLarge', values, { cause: error })
  }
  return etcdUnavailable(error.message, error)
}
