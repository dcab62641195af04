import { createHash } from 'node:crypto'
import { failure } from '../../base/errors.ts'
import type { JsonValue } from '../../base/json.ts'
import type { Limits } from '../../base/limits.ts'
import { fleetKey, hostLeasePrefix, leaderKey } from '../fleet/keys.ts'
import type { FleetRecord } from '../fleet/member.ts'
import type { Entry, Operation, Store } from '../store/store.ts'

/** One key and its value, without the revisions, which are another store's. */
export interface Pair {
  key: string
  value: JsonValue
}

/** What a set of pairs is known by. */
export interface Tally {
  keys: number
  /** SHA-256 over keys and values in the order of the keys; hexadecimal. */
  digest: string
}

/** Written last, with a `Tally`: without it what is in etcd is an unfinished copy. */
export const copiedKey = 'fleet/copied'

/** Whether a key is that of a store itself, and not of what it holds. */
function isOwn(key: string): boolean {
  return key === fleetKey || key === copiedKey
}

/**
 * What outlives the store that it is in. What hangs on a lease does not: it says that somebody is
 * there now, and they say so anew.
 */
export function lastingPairs(entries: readonly Entry[]): Pair[] {
  return entries
    .filter(({ lease, key }) => lease === undefined && key !== leaderKey)
    .filter(({ key }) => !key.startsWith(hostLeasePrefix) && !isOwn(key))
    .map(({ key, value }) => ({ key, value }))
}

/** Counts pairs one by one, in the order of their keys. */
export function createTally(): { add(pair: Pair): void; tally(): Tally } {
  const hash = createHash('sha256')
  let keys = 0
  return {
    add({ key, value }) {
      keys++
      hash.update(`${key}\n${JSON.stringify(value)}\n`)
    },
    tally: () => ({ keys, digest: hash.copy().digest('hex') }),
  }
}

/**
 * Fills an empty store: all pairs in batches that it takes, then the fleet's record and the tally
 * in one transaction, after it was seen that everything arrived.
 * @param pairs in the order of their keys
 * @throws storeNotEmpty, storeCopyDiffers, unavailable
 */
export async function fillStore(
  store: Store,
  pairs: AsyncIterable<Pair> | Iterable<Pair>,
  record: FleetRecord,
  limits: Limits,
): Promise<Tally> {
  const [found] = (await store.list('', { limit: 1 })).entries
  if (found !== undefined) throw failure('storeNotEmpty', { detail: found.key })
  const counted = createTally()
  for await (const batch of batchesOf(pairs, counted.add, limits)) {
    await write(store, batch)
  }
  const tally = counted.tally()
  await assertArrived(store, tally)
  const last: Put[] = [
    { put: fleetKey, value: { ...record } },
    { put: copiedKey, value: { ...tally } },
  ]
  await write(store, last)
  return tally
}

type Put = Extract<Operation, { put: string }>

async function write(store: Store, batch: readonly Put[]): Promise<void> {
  const compare = batch.map(({ put }) => ({ key: put, modRevision: 0 }))
  const { succeeded } = await store.transaction({ compare, operations: batch })
  if (!succeeded) throw failure('storeNotEmpty', { detail: `one of ${batch.length} new keys` })
}

/** Keys count twice, because each is compared too. */
async function* batchesOf(
  pairs: AsyncIterable<Pair> | Iterable<Pair>,
  add: (pair: Pair) => void,
  limits: Limits,
): AsyncGenerator<Put[]> {
  let batch: Put[] = []
  let bytes = 0
  for await (const pair of pairs) {
    const size = 2 * pair.key.length + Buffer.byteLength(JSON.stringify(pair.value))
    const isFull = batch.length >= limits.transactionOperations
    if (batch.length > 0 && (isFull || bytes + size > limits.transactionBytes)) {
      yield batch
      batch = []
      bytes = 0
    }
    add(pair)
    batch.push({ put: pair.key, value: pair.value })
    bytes += size
  }
  if (batch.length > 0) yield batch
}

async function assertArrived(store: Store, wanted: Tally): Promise<void> {
  const counted = createTally()
  for (const pair of lastingPairs((await store.list('')).entries)) counted.add(pair)
  const { keys, digest } = counted.tally()
  if (keys === wanted.keys && digest === wanted.digest) return
  const detail = `${keys} of ${wanted.keys} keys arrived, or their values differ`
  throw failure('storeCopyDiffers', { detail })
}
