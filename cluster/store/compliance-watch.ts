import { describe, expect, it } from 'vitest'
import { type Bench, collect, put, remove } from './compliance-tools.ts'
import type { Store, WatchBatch } from './store.ts'

function begin(store: Store, prefix: string, afterRevision: number) {
  const controller = new AbortController()
  const watch = store.watch(prefix, { afterRevision, signal: controller.signal })
  return { controller, iterator: watch[Symbol.asyncIterator]() }
}

/** Reads batches until one has events. */
async function nextEvents(iterator: AsyncIterator<WatchBatch>): Promise<WatchBatch> {
  for (;;) {
    const { done, value } = await iterator.next()
    if (done) throw new Error('the watch has ended')
    if (value.events.length > 0) return value
  }
}

/** Registers the tests of watches. */
export function watchCompliance(bench: Bench): void {
  describe('watches', () => {
    it('show each change with what was there before', async () => {
      const { store } = bench
      await put(store, 'vm/a', 1)
      await put(store, 'host/a', 1)
      await put(store, 'vm/a', 2)
      await remove(store, 'vm/a')
      const batches = await collect(store, 'vm/', 1, 5)
      const first = { key: 'vm/a', value: 1, createRevision: 2, modRevision: 2 }
      const second = { key: 'vm/a', value: 2, createRevision: 2, modRevision: 4 }
      expect(batches).toStrictEqual([
        { revision: 2, events: [{ type: 'put', key: 'vm/a', entry: first, revision: 2 }] },
        {
          revision: 4,
          events: [{ type: 'put', key: 'vm/a', entry: second, previous: first, revision: 4 }],
        },
        { revision: 5, events: [{ type: 'delete', key: 'vm/a', previous: second, revision: 5 }] },
      ])
      expect(await collect(store, 'vm/', 4, 5)).toEqual(batches.slice(2))
      expect(await collect(store, 'vm/', 0, 5)).toEqual(batches)
    })

    it('deliver all events of a revision together', async () => {
      const { store } = bench
      const { iterator, controller } = begin(store, 'a', 1)
      const pending = nextEvents(iterator)
      const operations = ['a2', 'a1', 'b'].map(key => ({ put: key, value: 1 }))
      const { revision } = await store.transaction({ compare: [], operations })
      const batch = await pending
      expect(batch.revision).toBe(revision)
      expect(batch.events.map(({ key }) => key).sort()).toEqual(['a1', 'a2'])
      await put(store, 'a1', 2)
      expect((await nextEvents(iterator)).events).toMatchObject([{ previous: { value: 1 } }])
      controller.abort()
    })

    it('wait for the first change of an empty store', async () => {
      const { store } = bench
      const pending = collect(store, '', 0, 2)
      await put(store, 'a', 1)
      expect(await pending).toHaveLength(1)
    })

    it('end without an error when they are aborted, waiting or not', async () => {
      const { store } = bench
      const waiting = begin(store, '', 1)
      const pending = waiting.iterator.next()
      waiting.controller.abort()
      expect(await pending).toEqual({ done: true, value: undefined })
      await put(store, 'a', 1)
      const early = begin(store, '', 1)
      early.controller.abort()
      expect((await early.iterator.next()).done).toBe(true)
      const between = begin(store, '', 1)
      await between.iterator.next()
      await put(store, 'a', 2)
      between.controller.abort()
      expect((await between.iterator.next()).done).toBe(true)
    })

    it('say how far they are when nothing they want happens', async () => {
      const { store, clock } = bench
      await put(store, 'other', 1)
      const { iterator, controller } = begin(store, 'vm/', 1)
      expect(await iterator.next()).toMatchObject({ value: { events: [], revision: 2 } })
      const pending = iterator.next()
      await put(store, 'other', 2)
      await clock.advance(10_000)
      expect(await pending).toMatchObject({ value: { events: [], revision: 3 } })
      controller.abort()
    })

    it('refuse a revision that is no longer kept, or never was', async () => {
      const store = await bench.restrict({ storeHistory: 5 })
      for (let value = 0; value < 10; value++) await put(store, 'a', value)
      expect(await store.revision()).toBe(11)
      expect(await collect(store, '', 6, 11)).toHaveLength(5)
      for (const afterRevision of [0, 1, 5]) {
        await expect(begin(store, '', afterRevision).iterator.next()).rejects.toMatchObject({
          code: 'revisionCompacted',
          httpStatus: 410,
        })
      }
      const unknown = begin(store, '', 12).iterator.next()
      await expect(unknown).rejects.toMatchObject({ code: 'revisionUnknown', httpStatus: 410 })
    })
  })
  load(bench)
}

function load(bench: Bench): void {
  describe('watches under load', () => {
    it('miss nothing and repeat nothing, whenever they begin', async () => {
      const store = await bench.restrict({ watchBacklog: 1_000 })
      const watching: Promise<WatchBatch[]>[] = []
      const last = 1 + 10 * 20
      const writers = Array.from({ length: 10 }, async (_, writer) => {
        for (let round = 0; round < 20; round++) {
          const operations = [
            { put: `key/${(writer * 7 + round) % 13}`, value: `${writer}/${round}` },
            { put: `same/${writer}`, value: round },
          ]
          await store.transaction({ compare: [], operations })
          if (round % 5 === 0) watching.push(collect(store, '', 1, last))
        }
      })
      await Promise.all(writers)
      const { entries, revision } = await store.list('')
      expect(revision).toBe(last)
      for (const batches of await Promise.all(watching)) {
        expect(batches.map(batch => batch.revision)).toEqual(
          Array.from({ length: 200 }, (_, index) => index + 2),
        )
        const replayed = new Map(
          batches.flatMap(({ events }) => events).map(({ key, entry }) => [key, entry]),
        )
        expect(
          [...replayed.values()].sort((a, b) => ((a?.key ?? '') < (b?.key ?? '') ? -1 : 1)),
        ).toEqual(entries)
      }
    })

    it('cut off a watcher that does not keep up, and only that one', async () => {
      const store = await bench.restrict({ watchBacklog: 10 })
      const slow = begin(store, '', 1)
      const pending = slow.iterator.next()
      const quick = collect(store, '', 1, 31)
      for (let value = 0; value < 30; value++) await put(store, 'a', value)
      expect(await quick).toHaveLength(30)
      expect(await pending).toMatchObject({ value: { revision: 2 } })
      await expect(slow.iterator.next()).rejects.toMatchObject({
        code: 'watcherTooSlow',
        httpStatus: 410,
      })
      expect((await slow.iterator.next()).done).toBe(true)
    })

    it('take one revision that is larger than the backlog', async () => {
      const store = await bench.restrict({ watchBacklog: 10 })
      const { iterator, controller } = begin(store, '', 1)
      const pending = iterator.next()
      const operations = Array.from({ length: 50 }, (_, index) => ({ put: `${index}`, value: 1 }))
      await store.transaction({ compare: [], operations })
      expect((await pending).value.events).toHaveLength(50)
      controller.abort()
    })

    it('are bounded in number', async () => {
      const store = await bench.restrict({ watches: 2 })
      const open = [begin(store, '', 1), begin(store, '', 1)]
      const pending = open.map(({ iterator }) => iterator.next())
      const third = begin(store, '', 1)
      await expect(third.iterator.next()).rejects.toMatchObject({ code: 'tooMany' })
      for (const { controller } of open) controller.abort()
      await Promise.all(pending)
      const { iterator, controller } = begin(store, '', 1)
      const next = iterator.next()
      await put(store, 'a', 1)
      expect((await next).done).toBe(false)
      controller.abort()
    })

    it('end with an error when the store is closed', async () => {
      const { store } = bench
      const pending = begin(store, '', 1).iterator.next()
      await store.close()
      await expect(pending).rejects.toMatchObject({ code: 'unavailable' })
    })
  })
}
