import type { Clock, Timer } from '../../base/clock.ts'
import { assert, failure, isFailure, type MacfleetError } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import type { History } from './history.ts'
import { createLeaseTimers } from './lease-timers.ts'
import { batchOf, type Change, type Lease, type State, type StateReader } from './state.ts'
import type { Store } from './store.ts'
import {
  assertKey,
  assertPrefix,
  type Decision,
  decideEnd,
  decideGrant,
  decideTransaction,
  prepareTransaction,
} from './transaction.ts'
import { createWatchHub } from './watch-hub.ts'

const dayMs = 24 * 60 * 60 * 1000

/** A lease that could not be ended, because the disk failed, is ended again after this long. */
const expiryRetryMs = 1_000

/** What every store is given. */
export interface StoreComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
}

/** What a store on this machine brings along. */
export interface StoreCoreInit {
  state: State
  history: Pick<History, 'read'>
  /**
   * Lets `decide` look at the newest state, makes its change durable, calls `apply` with it and
   * resolves with its result. Decisions are taken in the order of the calls.
   * @param bytes what the decision's change weighs, about
   */
  commit<Result>(decide: Decide<Result>, bytes: number): Promise<Result>
  close(): Promise<void>
}

/** Looks at a state and says what to do. */
export type Decide<Result> = (state: StateReader) => Decision<Result>

/** The part that all stores which keep their state in memory have in common. */
export interface StoreCore {
  store: Store
  /** Shows a durable change to readers and watchers. */
  apply(change: Change): void
  /** The error of everything that comes after close(). */
  assertOpen(): void
}

/** The error of a store that can't do its work now. */
export function storeUnavailable(detail: string, advice: string, cause?: unknown): MacfleetError {
  return failure('unavailable', { what: 'the store', detail, advice }, { cause })
}

/** Makes the store around `init.commit`; leases that the state holds start with their full time. */
export function createStoreCore(init: StoreCoreInit, components: StoreComponents): StoreCore {
  const { state, commit } = init
  const { clock, limits, log, random } = components
  const hub = createWatchHub(state.revision(), { clock, limits, history: init.history })
  const retries = new Set<Timer>()
  let closed = false
  let closing: Promise<void> | undefined

  const assertOpen = (): void => {
    if (closed) throw storeUnavailable('it was closed', '')
  }
  const end = (lease: string): Promise<undefined> => commit(view => decideEnd(view, lease), 0)
  const expire = (lease: string): void => {
    end(lease).catch(error => {
      if (closed || isFailure(error, 'leaseNotFound')) return
      log.warn({ lease, error: messageOf(error) }, 'could not end a lease, will retry')
      const retry = clock.setTimer(expiryRetryMs, () => {
        retries.delete(retry)
        expire(lease)
      })
      retries.add(retry)
    })
  }
  const timers = createLeaseTimers(expire, clock)
  for (const lease of state.leases()) timers.start(lease)

  const store: Store = {
    async get(key) {
      assertOpen()
      assertKey(key, limits)
      return { entry: state.get(key), revision: state.revision() }
    },
    async list(prefix, options = {}) {
      assertOpen()
      assertPrefix(prefix, limits)
      assert(options.limit === undefined || options.limit > 0, 'a page has a positive limit')
      return state.list(prefix, options)
    },
    async transaction(transaction) {
      assertOpen()
      const prepared = prepareTransaction(transaction, limits)
      return commit(view => decideTransaction(view, prepared, limits), prepared.bytes)
    },
    watch(prefix, options) {
      assertPrefix(prefix, limits)
      return hub.watch(prefix, options)
    },
    async grantLease(ttlMs) {
      assertOpen()
      assert(Number.isInteger(ttlMs) && ttlMs >= 1 && ttlMs <= dayMs, 'a lease has 1 ms to a day')
      const lease: Lease = { id: random.bytes(8).toString('hex'), ttlMs }
      return commit(view => decideGrant(view, lease, limits), 0)
    },
    async renewLease(lease) {
      assertOpen()
      if (!timers.renew(lease)) throw failure('leaseNotFound', { lease })
    },
    async revokeLease(lease) {
      assertOpen()
      await end(lease)
    },
    async revision() {
      assertOpen()
      return state.revision()
    },
    close() {
      closing ??= (async () => {
        closed = true
        timers.close()
        for (const retry of retries) retry.cancel()
        await init.close()
        hub.close(storeUnavailable('it was closed', ''))
      })()
      return closing
    },
  }

  return {
    store,
    assertOpen,
    apply(change) {
      state.apply(change)
      if (change.granted !== undefined && !closed) timers.start(change.granted)
      if (change.ended !== undefined) timers.stop(change.ended)
      if (change.events.length > 0) hub.publish(batchOf(change))
    },
  }
}
