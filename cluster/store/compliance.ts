import { afterEach, beforeEach, describe } from 'vitest'
import { defaultLimits, type Limits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createManualClock, type ManualClock } from '../../base/manual-clock.ts'
import { createSeededRandom } from '../../base/random.ts'
import { leaseCompliance } from './compliance-lease.ts'
import { listCompliance } from './compliance-list.ts'
import { modelCompliance } from './compliance-model.ts'
import { restartCompliance } from './compliance-restart.ts'
import type { Bench } from './compliance-tools.ts'
import { transactionCompliance } from './compliance-transaction.ts'
import { watchCompliance } from './compliance-watch.ts'
import type { Store } from './store.ts'
import type { StoreComponents } from './store-core.ts'

/** One implementation under test. */
export interface StoreFactory {
  /** Opens a new, empty store. */
  open(components: StoreComponents): Promise<Store>
  /** Opens the store that was opened last and has been closed since; absent where nothing lasts. */
  reopen?(components: StoreComponents): Promise<Store>
  /** Takes away what the stores left behind. */
  remove(): Promise<void>
}

/** Small limits, so that every test can reach them. */
const testLimits: Limits = { ...defaultLimits, storeHistory: 1_000, watchBacklog: 200 }

/** Registers the tests that every implementation of Store must pass. */
export function storeCompliance(name: string, createFactory: () => StoreFactory): void {
  describe(`${name} store`, () => {
    let factory: StoreFactory
    let components: StoreComponents
    let clock: ManualClock
    let store: Store

    beforeEach(async () => {
      clock = createManualClock()
      const random = createSeededRandom(1)
      components = { clock, random, log: silentLog, limits: testLimits }
      factory = createFactory()
      store = await factory.open(components)
    })
    afterEach(async () => {
      await store.close()
      await factory.remove()
    })

    const bench: Bench = {
      get store() {
        return store
      },
      get clock() {
        return clock
      },
      async restrict(limits) {
        await store.close()
        components = { ...components, limits: { ...testLimits, ...limits } }
        store = await factory.open(components)
        return store
      },
      get restart() {
        const { reopen } = factory
        if (reopen === undefined) return undefined
        return async () => {
          await store.close()
          store = await reopen(components)
          return store
        }
      },
    }
    transactionCompliance(bench)
    listCompliance(bench)
    watchCompliance(bench)
    leaseCompliance(bench)
    modelCompliance(bench)
    restartCompliance(bench)
  })
}
