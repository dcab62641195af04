import { describe, expect, it } from 'vitest'
import { type Bench, collect, put } from './compliance-tools.ts'

/** Registers the tests of leases. */
export function leaseCompliance(bench: Bench): void {
  const isThere = async (key: string) => (await bench.store.get(key)).entry !== undefined

  describe('leases', () => {
    it('delete their keys as one revision when their time is over', async () => {
      const { store, clock } = bench
      const lease = await store.grantLease(1_000)
      await put(store, 'b', 1, lease)
      await put(store, 'a', 1, lease)
      const before = await put(store, 'other', 1)
      expect((await store.get('a')).entry?.lease).toBe(lease)
      await clock.advance(999)
      expect(await isThere('a')).toBe(true)
      await clock.advance(1)
      const [batch, ...rest] = await collect(store, '', before, before + 1)
      expect(rest).toEqual([])
      expect(batch?.events.map(({ type, key, previous }) => [type, key, previous?.value])).toEqual([
        ['delete', 'a', 1],
        ['delete', 'b', 1],
      ])
      expect((await store.list('')).entries.map(({ key }) => key)).toEqual(['other'])
    })

    it('live on as long as they are renewed', async () => {
      const { store, clock } = bench
      const lease = await store.grantLease(1_000)
      const revision = await put(store, 'a', 1, lease)
      for (let round = 0; round < 5; round++) {
        await clock.advance(900)
        await store.renewLease(lease)
      }
      await clock.advance(999)
      expect(await isThere('a')).toBe(true)
      await clock.advance(1)
      await collect(store, '', revision, revision + 1)
      expect(await isThere('a')).toBe(false)
      await expect(store.renewLease(lease)).rejects.toMatchObject({ code: 'leaseNotFound' })
    })

    it('end at once when they are revoked', async () => {
      const { store, clock } = bench
      const lease = await store.grantLease(1_000)
      const other = await store.grantLease(1_000)
      await put(store, 'a', 1, lease)
      await put(store, 'b', 1, other)
      await store.revokeLease(lease)
      expect([await isThere('a'), await isThere('b')]).toEqual([false, true])
      for (const use of [
        () => store.revokeLease(lease),
        () => store.renewLease(lease),
        () => put(store, 'c', 1, lease),
        () => put(store, 'c', 1, 'never was'),
      ]) {
        await expect(use()).rejects.toMatchObject({ code: 'leaseNotFound' })
      }
      expect(await isThere('c')).toBe(false)
      await store.revokeLease(other)
      await clock.advance(2_000)
      expect(await store.revision()).toBe(5)
    })

    it('let go of a key that is written without them, or with another', async () => {
      const { store } = bench
      const first = await store.grantLease(1_000)
      const second = await store.grantLease(5_000)
      for (const key of ['free', 'moved', 'made anew', 'held']) await put(store, key, 1, first)
      await put(store, 'free', 2)
      await put(store, 'moved', 2, second)
      await store.transaction({ compare: [], operations: [{ delete: 'made anew' }] })
      await put(store, 'made anew', 2)
      await store.revokeLease(first)
      const keys = (await store.list('')).entries.map(({ key }) => key)
      expect(keys).toEqual(['free', 'made anew', 'moved'])
      await store.revokeLease(second)
      expect(await isThere('moved')).toBe(false)
    })

    it('are bounded in number, and have a time that makes sense', async () => {
      const store = await bench.restrict({ leases: 2 })
      for (const ttlMs of [0, -1, 0.5, Number.NaN, 1e9]) {
        await expect(store.grantLease(ttlMs)).rejects.toThrow('assertion failed')
      }
      const lease = await store.grantLease(10_000)
      expect(await store.grantLease(10_000)).not.toBe(lease)
      await expect(store.grantLease(10_000)).rejects.toMatchObject({ code: 'tooMany' })
      await store.revokeLease(lease)
      await store.grantLease(10_000)
    })
  })
}
