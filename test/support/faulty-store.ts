import { type Clock, sleep } from '../../base/clock.ts'
import { type Random, randomInteger } from '../../base/random.ts'
import type { Store, WatchBatch, WatchOptions } from '../../cluster/store/store.ts'
import { storeUnavailable } from '../../cluster/store/store-core.ts'

/** What goes wrong with a store from now on. */
export interface StoreFaults {
  /** Reads, and watches that are opened, throw `unavailable`. */
  refuseReads: boolean
  /** Writes and leases throw `unavailable`, nothing done. */
  refuseWrites: boolean
  /** Writes throw `unavailable` and were done, or were not: half of each. */
  doubtfulWrites: boolean
  /** Everything but watches is answered so much later. */
  delayMs: number
}

/** A store whose way is as bad as a test wants it; without faults it is the one inside. */
export interface FaultyStore extends Store {
  readonly faults: StoreFaults
  /** Reads and writes are refused, or work again. */
  setAvailable(available: boolean): void
  /** Ends all open watches with `unavailable`. */
  breakWatches(): void
}

/** Nothing is wrong at first. */
export function createFaultyStore(
  store: Store,
  { clock, random }: { clock: Clock; random: Random },
): FaultyStore {
  const faults: StoreFaults = {
    refuseReads: false,
    refuseWrites: false,
    doubtfulWrites: false,
    delayMs: 0,
  }
  let watches = new AbortController()
  const refused = (): Error => storeUnavailable('the test refuses it', '')
  const delay = async (): Promise<void> => {
    if (faults.delayMs > 0) await sleep(clock, faults.delayMs)
  }
  const read = async <Result>(work: () => Promise<Result>): Promise<Result> => {
    await delay()
    if (faults.refuseReads) throw refused()
    return work()
  }
  const write = async <Result>(work: () => Promise<Result>): Promise<Result> => {
    if (faults.delayMs > 0) await delay()
    if (faults.refuseWrites) throw refused()
    if (!faults.doubtfulWrites) return work()
    if (randomInteger(random, 2) === 1) await work()
    throw refused()
  }
  async function* watch(prefix: string, options: WatchOptions): AsyncGenerator<WatchBatch> {
    if (faults.refuseReads) throw refused()
    const broken = watches.signal
    const signal = AbortSignal.any([options.signal, broken])
    yield* store.watch(prefix, { ...options, signal })
    if (broken.aborted && !options.signal.aborted) throw refused()
  }

  return {
    faults,
    setAvailable(available) {
      faults.refuseReads = !available
      faults.refuseWrites = !available
    },
    breakWatches() {
      watches.abort()
      watches = new AbortController()
    },
    get: key => read(() => store.get(key)),
    list: (prefix, options) => read(() => store.list(prefix, options)),
    revision: () => read(() => store.revision()),
    transaction: transaction => write(() => store.transaction(transaction)),
    grantLease: ttlMs => write(() => store.grantLease(ttlMs)),
    renewLease: lease => write(() => store.renewLease(lease)),
    revokeLease: lease => write(() => store.revokeLease(lease)),
    watch,
    close: () => store.close(),
  }
}
