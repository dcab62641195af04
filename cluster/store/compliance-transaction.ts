import { describe, expect, it } from 'vitest'
import type { JsonValue } from '../../base/json.ts'
import { type Bench, put, remove } from './compliance-tools.ts'
import type { Operation, Store } from './store.ts'

const write = (store: Store, ...operations: Operation[]) =>
  store.transaction({ compare: [], operations })

/** Registers the tests of transactions and of what they may hold. */
export function transactionCompliance(bench: Bench): void {
  describe('transactions', () => {
    it('count every change as one revision', async () => {
      const { store } = bench
      expect(await store.revision()).toBe(1)
      expect(await put(store, 'a', 'one')).toBe(2)
      expect(await put(store, 'a', 'two')).toBe(3)
      const { entry, revision } = await store.get('a')
      expect(entry).toEqual({ key: 'a', value: 'two', createRevision: 2, modRevision: 3 })
      expect(revision).toBe(3)
      expect((await store.get('b')).entry).toBeUndefined()
    })

    it('create only what is not there', async () => {
      const { store } = bench
      const create = (value: string) =>
        store.transaction({
          compare: [{ key: 'a', createRevision: 0 }],
          operations: [{ put: 'a', value }],
        })
      expect(await create('first')).toEqual({ succeeded: true, revision: 2, current: [] })
      const { entry } = await store.get('a')
      expect(await create('second')).toEqual({ succeeded: false, revision: 2, current: [entry] })
      expect((await store.get('a')).entry).toEqual(entry)
    })

    it('let exactly one of many writers of the same revision win', async () => {
      const { store } = bench
      const modRevision = await put(store, 'a', 'start')
      const results = await Promise.all(
        Array.from({ length: 20 }, (_, writer) =>
          store.transaction({
            compare: [{ key: 'a', modRevision }],
            operations: [{ put: 'a', value: writer }],
          }),
        ),
      )
      expect(results.filter(result => result.succeeded)).toHaveLength(1)
      const winner = results.findIndex(result => result.succeeded)
      expect((await store.get('a')).entry?.value).toBe(winner)
      for (const { succeeded, current } of results) {
        if (!succeeded) expect(current[0]?.value).toBe(winner)
      }
    })

    it('change nothing when one of several compares fails', async () => {
      const { store } = bench
      const a = await put(store, 'a', 1)
      await put(store, 'b', 1)
      const result = await store.transaction({
        compare: [
          { key: 'a', modRevision: a },
          { key: 'b', modRevision: 99 },
          { key: 'c', modRevision: 0 },
        ],
        operations: [{ put: 'a', value: 2 }, { delete: 'b' }, { put: 'c', value: 2 }],
      })
      expect(result.succeeded).toBe(false)
      expect(result.current.map(entry => entry?.key)).toEqual(['a', 'b', undefined])
      const { entries, revision } = await store.list('')
      expect(entries.map(({ key, value }) => [key, value])).toEqual([
        ['a', 1],
        ['b', 1],
      ])
      expect(revision).toBe(3)
    })

    it('write several keys under one revision', async () => {
      const { store } = bench
      await put(store, 'gone', 1)
      await put(store, 'old/1', 1)
      await put(store, 'old/2', 1)
      const { revision } = await write(
        store,
        { put: 'a', value: 1 },
        { put: 'b', value: 2 },
        { delete: 'gone' },
        { deletePrefix: 'old/' },
      )
      const { entries } = await store.list('')
      expect(entries.map(({ key, modRevision }) => [key, modRevision])).toEqual([
        ['a', revision],
        ['b', revision],
      ])
    })

    it('count a key that was deleted and made again as new', async () => {
      const { store } = bench
      await put(store, 'a', 1)
      await remove(store, 'a')
      const revision = await put(store, 'a', 2)
      expect((await store.get('a')).entry?.createRevision).toBe(revision)
    })

    it('keep the revision when they change nothing', async () => {
      const { store } = bench
      await put(store, 'a', 1)
      const revision = await store.revision()
      expect(await remove(store, 'b')).toBe(revision)
      const check = { compare: [{ key: 'a', createRevision: revision }], operations: [] }
      expect(await store.transaction(check)).toMatchObject({ succeeded: true, revision })
      expect(await store.revision()).toBe(revision)
    })
  })
  limits(bench)
}

function limits(bench: Bench): void {
  describe('what is stored', () => {
    it('shares no memory with those who wrote or read it', async () => {
      const { store } = bench
      const value = { list: [1, 2], nested: { name: 'before' }, left: undefined }
      const writing = write(store, { put: 'a', value })
      value.nested.name = 'after'
      value.list.push(3)
      await writing
      const { entry } = await store.get('a')
      expect(entry?.value).toStrictEqual({ list: [1, 2], nested: { name: 'before' } })
      expect(() => Object.assign(entry?.value ?? {}, { nested: 1 })).toThrow(TypeError)
      expect(() => Object.assign(entry ?? {}, { key: 'b' })).toThrow(TypeError)
    })

    it('takes every JSON value back as it was', async () => {
      const { store } = bench
      const value: JsonValue = { text: 'ü \u0000 \ud800 "\\', '': [null, true, -1.5e300, [[]], {}] }
      await write(store, { put: 'a', value })
      expect((await store.get('a')).entry?.value).toStrictEqual(value)
    })

    it('is nothing but JSON', async () => {
      const { store } = bench
      const cycle: { self?: JsonValue } = {}
      cycle.self = cycle
      const deep: unknown = JSON.parse('['.repeat(5_000) + ']'.repeat(5_000))
      for (const value of [Number.NaN, new Date(0), () => 1, [undefined], cycle, deep, 1n]) {
        // The type keeps these out; what comes from elsewhere may get around it.
        const transaction = { compare: [], operations: [{ put: 'a', value }] }
        const writing = Reflect.apply(store.transaction, store, [transaction])
        await expect(writing).rejects.toThrow()
      }
      expect(await store.revision()).toBe(1)
    })

    it('has keys of printable ASCII and bounded length', async () => {
      const { store } = bench
      for (const key of ['', 'a\n', 'a\u0000', 'ü', 'x'.repeat(1025)]) {
        await expect(put(store, key, 1)).rejects.toThrow('assertion failed')
        await expect(store.get(key)).rejects.toThrow('assertion failed')
      }
      await put(store, 'x'.repeat(1024), 1)
    })

    it('comes in transactions of at most 128 operations and 1.5 MiB', async () => {
      const { store } = bench
      const puts = Array.from({ length: 129 }, (_, index) => ({ put: `k${index}`, value: index }))
      await expect(write(store, ...puts)).rejects.toMatchObject({ code: 'storeRequestTooLarge' })
      await write(store, ...puts.slice(1))
      const value = 'x'.repeat(1.5 * 1024 * 1024)
      const large = write(store, { put: 'a', value })
      await expect(large).rejects.toMatchObject({ code: 'storeRequestTooLarge' })
      await write(store, { put: 'a', value: value.slice(10) })
    })

    it('is put once in a transaction, and not deleted in the same', async () => {
      const { store } = bench
      const a = { put: 'a', value: 1 }
      await expect(write(store, a, a)).rejects.toThrow('assertion failed')
      await expect(write(store, a, { delete: 'a' })).rejects.toThrow('assertion failed')
      await expect(write(store, a, { deletePrefix: 'a' })).rejects.toThrow('assertion failed')
    })

    it('weighs at most storeBytes, and a full store still takes deletions', async () => {
      const store = await bench.restrict({ storeBytes: 1_000 })
      await put(store, 'a', 'x'.repeat(900))
      const refused = put(store, 'b', 'x'.repeat(100))
      await expect(refused).rejects.toMatchObject({ code: 'storeFull' })
      await put(store, 'a', 'x'.repeat(800))
      await put(store, 'b', 'x'.repeat(100))
      await remove(store, 'a')
      await put(store, 'c', 'x'.repeat(800))
    })

    it('is out of reach once the store is closed', async () => {
      const { store } = bench
      await store.close()
      await store.close()
      const { signal } = new AbortController()
      const watch = store.watch('', { afterRevision: 1, signal })[Symbol.asyncIterator]()
      for (const use of [store.get('a'), store.list(''), put(store, 'a', 1), watch.next()]) {
        await expect(use).rejects.toMatchObject({ code: 'unavailable' })
      }
    })
  })
}
