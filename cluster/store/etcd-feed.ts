import { backoffMs } from '../../base/backoff.ts'
import { sleep, type Timer } from '../../base/clock.ts'
import { failure, isFailure } from '../../base/errors.ts'
import { messageOf } from '../../base/log.ts'
import type { EtcdConnection, EtcdExchange } from '../etcd/connection.ts'
import { etcdUnavailable } from '../etcd/rpc-failure.ts'
import { Compacted, compactedFailure, type EtcdChange, readChanges } from './etcd-changes.ts'
import type { EtcdCodec } from './etcd-codec.ts'
import { readRange, readRevision } from './etcd-range.ts'
import { createEtcdReplay } from './etcd-replay.ts'
import { assertKept, createHistory, type History } from './history.ts'
import type { WatchBatch, WatchOptions } from './store.ts'
import type { StoreComponents } from './store-core.ts'
import { createWatchHub, type WatchHub } from './watch-hub.ts'

/** What a feed works with. */
export interface EtcdFeedInit {
  connection: EtcdConnection
  codec: EtcdCodec
  /** Told revision of the newest that no watch may begin before, whatever etcd still has. */
  oldestRevision: number
}

/**
 * Follows everything that happens in etcd over one watch, which all watches of this process share.
 * It lives through the loss of endpoints without gap or doubling.
 */
export interface EtcdFeed {
  watch(prefix: string, options: WatchOptions): AsyncIterable<WatchBatch>
  /** Resolves when all up to this told revision was seen. @throws unavailable after a while */
  reach(revision: number): Promise<void>
  /** etcd was heard to be at this revision: a watch that stays behind is made anew elsewhere. */
  heard(revision: number): void
  /** Asks etcd for its newest revision and waits until all up to it was seen. @throws unavailable */
  synchronize(): Promise<number>
  /** What our keys and values weigh, as far as was seen. */
  bytes(): number
  close(reason: Error): void
}

const reachMs = 5_000
/** So long the watch may stand still while etcd is known to be further. */
const behindMs = 1_000
/** Revisions kept in memory for watches that begin a little in the past, as most do. */
const recentRevisions = 256
const again = { firstMs: 50, mostMs: 1_000 }

/** What is known between a start and the loss of the history. */
interface Epoch {
  hub: WatchHub
  recent: History
  /** Told revision of the last that was published. */
  newest: number
}

/** Starts following at once; until etcd answers, everything waits. */
export function createEtcdFeed(init: EtcdFeedInit, components: StoreComponents): EtcdFeed {
  const { connection, codec } = init
  const { clock, limits, log } = components
  const closing = new AbortController()
  const replay = createEtcdReplay({ connection, codec, clock })
  const waiters = new Set<{ revision: number; resolve: () => void; reject: (e: Error) => void }>()
  let closedWith: Error | undefined
  let epoch: Epoch | undefined
  let bytes = 0
  let heardRevision = 0
  let watching = 0
  let exchange: EtcdExchange<'Watch.Watch'> | undefined
  let behindTimer: Timer | undefined

  const wake = (): void => {
    for (const waiter of waiters) {
      if (epoch !== undefined && waiter.revision <= epoch.newest) waiter.resolve()
    }
  }
  const watchProgress = (): void => {
    if (behindTimer !== undefined || epoch === undefined || heardRevision <= epoch.newest) return
    const { newest } = epoch
    behindTimer = clock.setTimer(behindMs, () => {
      behindTimer = undefined
      if (epoch?.newest !== newest) return watchProgress()
      exchange?.failed('its watch stays behind')
      exchange?.cancel()
    })
  }
  const begin = async (): Promise<Epoch> => {
    let newest = 0
    let weight = 0
    for await (const { found, revision } of readRange(connection, codec.range(''))) {
      newest = codec.told(revision)
      for (const one of found) weight += codec.bytes(one)
    }
    bytes = weight
    const recent = createHistory(recentRevisions, newest)
    const history = { read: (after: number, last: number) => readHistory(recent, after, last) }
    return { newest, recent, hub: createWatchHub(newest, { clock, limits, history }) }
  }
  const readHistory = async (recent: History, after: number, last: number) => {
    try {
      return await recent.read(after, last)
    } catch {
      return replay.read(after, last)
    }
  }
  const publish = (at: Epoch, { batch, growthBytes }: EtcdChange): void => {
    at.newest = batch.revision
    bytes += growthBytes
    at.recent.add(batch)
    at.hub.publish(batch)
    wake()
  }
  const follow = async (at: Epoch): Promise<void> => {
    const changes = readChanges(
      at.newest,
      { connection, codec, clock },
      {
        signal: closing.signal,
        onOpen: opened => {
          exchange = opened
        },
      },
    )
    for await (const change of changes) {
      publish(at, change)
      // Lets watchers take this revision before the next comes, however many came at once.
      await new Promise(resolve => setImmediate(resolve))
    }
  }
  const run = async (): Promise<void> => {
    let failures = 0
    while (!closing.signal.aborted) {
      const before = epoch?.newest
      try {
        epoch ??= await begin()
        wake()
        await follow(epoch)
      } catch (error) {
        failures = epoch !== undefined && epoch.newest !== before ? 1 : failures + 1
        if (closing.signal.aborted) return
        log.debug({ error: messageOf(error) }, 'the watch of etcd broke, it is taken up again')
        if (epoch !== undefined && mustBeginAnew(error)) {
          epoch.hub.close(reasonToBeginAnew(error, epoch.newest, codec))
          epoch = undefined
        }
        await sleep(clock, backoffMs(again, failures), closing.signal).catch(() => {})
      }
    }
  }
  const reach = (revision: number): Promise<void> =>
    new Promise((resolve, reject) => {
      if (closedWith !== undefined) return reject(closedWith)
      if (epoch !== undefined && epoch.newest >= revision) return resolve()
      const done = (): void => {
        timer.cancel()
        waiters.delete(waiter)
      }
      const waiter = {
        revision,
        resolve: () => [done(), resolve()],
        reject: (error: Error) => [done(), reject(error)],
      }
      const timer = clock.setTimer(reachMs, () => {
        waiter.reject(etcdUnavailable(`its watch did not come to revision ${revision}`))
      })
      waiters.add(waiter)
    })
  const heard = (revision: number): void => {
    heardRevision = Math.max(heardRevision, revision)
    watchProgress()
  }
  const synchronize = async (): Promise<number> => {
    const revision = codec.told(await readRevision(connection))
    heard(revision)
    await reach(revision)
    return revision
  }
  const assertWatchable = (afterRevision: number, newest: number): void => {
    if (afterRevision > newest)
      throw failure('revisionUnknown', { revision: afterRevision, newest })
    assertKept(afterRevision, Math.max(init.oldestRevision, newest - limits.storeHistory))
  }
  async function* follower(prefix: string, options: WatchOptions): AsyncGenerator<WatchBatch> {
    const { signal, afterRevision } = options
    const newest = await unlessAborted(signal, synchronize)
    if (newest === undefined) return
    assertWatchable(afterRevision, newest)
    if (epoch === undefined) throw closedWith ?? etcdUnavailable('its history is being read anew')
    yield* epoch.hub.watch(prefix, options)
  }
  async function* watch(prefix: string, options: WatchOptions): AsyncGenerator<WatchBatch> {
    if (closedWith !== undefined) throw closedWith
    // Counted before anything is waited for, so that the first to come are served.
    if (watching >= limits.watches) {
      throw failure('tooMany', { limit: limits.watches, what: 'watches' })
    }
    watching++
    try {
      yield* follower(prefix, options)
    } finally {
      watching--
    }
  }
  run()

  return {
    watch,
    reach,
    heard,
    synchronize,
    bytes: () => bytes,
    close(reason) {
      closedWith = reason
      closing.abort()
      behindTimer?.cancel()
      for (const waiter of waiters) waiter.reject(reason)
      epoch?.hub.close(reason)
    },
  }
}

/** Whether no endpoint would show what comes next. */
function mustBeginAnew(error: unknown): boolean {
  return error instanceof Compacted || isFailure(error, 'etcdValueDamaged')
}

function reasonToBeginAnew(error: unknown, newest: number, codec: EtcdCodec): Error {
  if (error instanceof Compacted) return compactedFailure(newest, error.before, codec)
  return error instanceof Error ? error : new Error(String(error))
}

/** What `work` answers; undefined as soon as the signal is aborted. */
async function unlessAborted<Result>(
  signal: AbortSignal,
  work: () => Promise<Result>,
): Promise<Result | undefined> {
  if (signal.aborted) return undefined
  const { promise, resolve } = Promise.withResolvers<undefined>()
  const onAbort = (): void => resolve(undefined)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([work(), promise])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}
