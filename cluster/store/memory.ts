import { createHistory } from './history.ts'
import { batchOf, createState } from './state.ts'
import type { Store } from './store.ts'
import { createStoreCore, type StoreComponents } from './store-core.ts'

/**
 * A store that ends with the process, for tests and the simulation: a call takes effect at once.
 */
export function createMemoryStore(components: StoreComponents): Store {
  const state = createState()
  const history = createHistory(components.limits.storeHistory)
  const core = createStoreCore(
    {
      state,
      history,
      async commit(decide) {
        core.assertOpen()
        const { result, change } = decide(state)
        if (change !== undefined) {
          if (change.events.length > 0) history.add(batchOf(change))
          core.apply(change)
        }
        return result
      },
      close: async () => {},
    },
    components,
  )
  return core.store
}
