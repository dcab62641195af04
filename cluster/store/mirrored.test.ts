import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createManualClock, type ManualClock } from '../../base/manual-clock.ts'
import { createSeededRandom } from '../../base/random.ts'
import { createFaultyStore, type FaultyStore } from '../../test/support/faulty-store.ts'
import { storeCompliance } from './compliance.ts'
import { put, remove } from './compliance-tools.ts'
import { createMemoryStore } from './memory.ts'
import { createMirroredStore, type MirroredStore, type Staleness } from './mirrored.ts'
import type { StoreComponents } from './store-core.ts'

/** A memory store with room for the mirror's own watch. */
function createInner(components: StoreComponents): FaultyStore {
  const { limits } = components
  const store = createMemoryStore({
    ...components,
    limits: { ...limits, watches: limits.watches + 1 },
  })
  return createFaultyStore(store, components)
}

storeCompliance('mirrored', () => ({
  async open(components) {
    const store = createMirroredStore(createInner(components), components)
    // The mirror takes its watch first.
    await new Promise(resolve => setImmediate(resolve))
    return store
  },
  remove: async () => {},
}))

describe('a mirrored store', () => {
  let clock: ManualClock
  let inner: FaultyStore
  let store: MirroredStore
  let told: (Staleness | undefined)[]
  const limits = { ...defaultLimits, storeBytes: 1_000 }

  beforeEach(async () => {
    clock = createManualClock()
    const components = { clock, random: createSeededRandom(1), log: silentLog, limits }
    inner = createInner(components)
    store = createMirroredStore(inner, components)
    told = []
    store.onStale(staleness => told.push(staleness))
    await put(store, 'vm/a', 1)
    await put(store, 'vm/b', 2)
    await clock.advance(0)
  })
  afterEach(() => store.close())

  /** An old answer comes only after a reader's patience. */
  const patiently = async <Result>(reading: Promise<Result>): Promise<Result> => {
    const result = reading.catch(error => error)
    await clock.advance(250)
    return result
  }

  it('answers reads as of before while the store is away, and says since when', async () => {
    await remove(store, 'vm/a')
    const before = await store.list('vm/')
    await clock.advance(1_000)
    inner.setAvailable(false)
    inner.breakWatches()
    expect(store.staleSince()).toBeUndefined()
    expect(await store.list('vm/')).toEqual(before)
    await clock.advance(5_000)
    expect(await patiently(store.get('vm/b'))).toMatchObject({ entry: { value: 2 }, revision: 4 })
    expect(await patiently(store.get('vm/a'))).toEqual({ entry: undefined, revision: 4 })
    expect(await patiently(store.revision())).toBe(4)
    expect(store.staleSince()).toEqual({ sinceMs: 1_000, revision: 4 })
    await expect(put(store, 'vm/c', 3)).rejects.toMatchObject({ code: 'unavailable' })
    expect(told).toEqual([{ sinceMs: 1_000, revision: 4 }])
  })

  it('asks the store itself as soon as it is back', async () => {
    inner.setAvailable(false)
    inner.breakWatches()
    await store.get('vm/a')
    inner.setAvailable(true)
    await put(store, 'vm/a', 'newest')
    expect((await store.get('vm/a')).entry?.value).toBe('newest')
    expect(store.staleSince()).toBeUndefined()
    expect(told.at(-1)).toBeUndefined()
    // The mirror was made again: it shows what was written meanwhile when the store goes once more.
    await clock.advance(10_000)
    inner.setAvailable(false)
    expect((await store.get('vm/a')).entry?.value).toBe('newest')
  })

  it('waits no longer than its patience for a store that does not answer', async () => {
    inner.setAvailable(false)
    await store.get('vm/a')
    inner.faults.delayMs = 60_000
    let answer: unknown
    const reading = store.get('vm/a').then(found => {
      answer = found.entry?.value
    })
    await clock.advance(249)
    expect(answer).toBeUndefined()
    await clock.advance(1)
    await reading
    expect(answer).toBe(1)
  })

  it('answers from memory for want of the store alone', async () => {
    await expect(store.get('')).rejects.toThrow('assertion failed')
    await store.close()
    await expect(store.get('vm/a')).rejects.toMatchObject({ code: 'unavailable' })
  })

  it('has nothing to answer with before it read everything once', async () => {
    const components = { clock, random: createSeededRandom(1), log: silentLog, limits }
    const away = createInner(components)
    away.setAvailable(false)
    const mirrored = createMirroredStore(away, components)
    await expect(mirrored.get('a')).rejects.toMatchObject({ code: 'unavailable' })
    expect(mirrored.staleSince()).toBeUndefined()
    away.setAvailable(true)
    await put(away, 'a', 1)
    await clock.advance(10_000)
    away.setAvailable(false)
    expect((await mirrored.get('a')).entry?.value).toBe(1)
    await mirrored.close()
  })
})
