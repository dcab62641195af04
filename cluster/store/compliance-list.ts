import { describe, expect, it } from 'vitest'
import { type Bench, put, remove } from './compliance-tools.ts'

/** Registers the tests of lists. */
export function listCompliance(bench: Bench): void {
  describe('lists', () => {
    const keysOf = async (prefix: string, limit?: number, afterKey?: string) => {
      const options = {
        ...(limit === undefined ? {} : { limit }),
        ...(afterKey === undefined ? {} : { afterKey }),
      }
      const { entries, more } = await bench.store.list(prefix, options)
      return { keys: entries.map(({ key }) => key), more }
    }

    it('are sorted by the bytes of the keys and hold exactly the prefix', async () => {
      const keys = ['vm/b', 'vm/a', 'vm', 'vm/a/x', 'vm0', 'vm/B', 'vm/a-1', 'vn', 'VM/a', 'vm.1']
      for (const key of keys) await put(bench.store, key, key)
      expect((await keysOf('')).keys).toEqual([...keys].sort())
      expect((await keysOf('vm/')).keys).toEqual(['vm/B', 'vm/a', 'vm/a-1', 'vm/a/x', 'vm/b'])
      expect(await keysOf('vm/c')).toEqual({ keys: [], more: false })
      expect((await bench.store.list('nothing')).revision).toBe(keys.length + 1)
    })

    it('come in pages', async () => {
      for (const key of ['a/1', 'a/2', 'a/3', 'a/4', 'b/1']) await put(bench.store, key, key)
      expect(await keysOf('a/', 2)).toEqual({ keys: ['a/1', 'a/2'], more: true })
      expect(await keysOf('a/', 2, 'a/2')).toEqual({ keys: ['a/3', 'a/4'], more: false })
      expect(await keysOf('a/', 4)).toEqual({ keys: ['a/1', 'a/2', 'a/3', 'a/4'], more: false })
      expect(await keysOf('a/', 2, 'a/4')).toEqual({ keys: [], more: false })
      expect(await keysOf('a/', 9, 'a/2+')).toEqual({ keys: ['a/3', 'a/4'], more: false })
      expect(await keysOf('a/', 9, 'Z')).toMatchObject({ keys: { length: 4 } })
      expect(await keysOf('a/', 9, 'b')).toEqual({ keys: [], more: false })
    })

    it('go on after a key that was deleted between two pages', async () => {
      for (const key of ['a', 'b', 'c', 'd']) await put(bench.store, key, key)
      const { keys } = await keysOf('', 2)
      await remove(bench.store, 'b')
      expect((await keysOf('', 2, keys.at(-1))).keys).toEqual(['c', 'd'])
    })
  })
}
