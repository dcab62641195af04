import { describe, expect, it } from 'vitest'
import { type Bench, collect, put, remove } from './compliance-tools.ts'
import type { Store } from './store.ts'

/**
 * Registers the tests of what is still there after a restart; they do nothing where nothing lasts.
 */
export function restartCompliance(bench: Bench): void {
  const restart = async (): Promise<Store | undefined> => bench.restart?.()

  describe('a restart', () => {
    it('keeps entries, revision and history', async () => {
      const { store } = bench
      await put(store, 'a', 1)
      await put(store, 'b', 2)
      await remove(store, 'a')
      const before = { list: await store.list(''), history: await collect(store, '', 1, 4) }
      const again = await restart()
      if (again === undefined) return
      expect({ list: await again.list(''), history: await collect(again, '', 1, 4) }).toEqual(
        before,
      )
      expect(await put(again, 'b', 3)).toBe(5)
      expect((await again.get('b')).entry).toMatchObject({ createRevision: 3, modRevision: 5 })
    })

    it('lets a watch go on where it was', async () => {
      const { store } = bench
      for (let value = 0; value < 5; value++) await put(store, 'a', value)
      const seen = await collect(store, '', 1, 4)
      const again = await restart()
      if (again === undefined) return
      await put(again, 'a', 5)
      const rest = await collect(again, '', 4, 7)
      expect([...seen, ...rest].map(({ events }) => events[0]?.entry?.value)).toEqual([
        0, 1, 2, 3, 4, 5,
      ])
    })

    it('does not bring back history that was compacted', async () => {
      const store = await bench.restrict({ storeHistory: 3 })
      for (let value = 0; value < 10; value++) await put(store, 'a', value)
      const again = await restart()
      if (again === undefined) return
      const old = collect(again, '', 7, 11)
      await expect(old).rejects.toMatchObject({ code: 'revisionCompacted' })
      expect(await collect(again, '', 8, 11)).toHaveLength(3)
    })

    it('gives leases their full time again', async () => {
      const { store, clock } = bench
      const kept = await store.grantLease(1_000)
      const ended = await store.grantLease(1_000)
      await put(store, 'a', 1, kept)
      await put(store, 'b', 1, ended)
      await store.revokeLease(ended)
      await clock.advance(900)
      const again = await restart()
      if (again === undefined) return
      await expect(again.renewLease(ended)).rejects.toMatchObject({ code: 'leaseNotFound' })
      await clock.advance(900)
      await again.renewLease(kept)
      await clock.advance(999)
      expect((await again.get('a')).entry?.lease).toBe(kept)
      await clock.advance(1)
      expect(await collect(again, '', 4, 5)).toMatchObject([{ events: [{ type: 'delete' }] }])
    })
  })
}
