import { describe, expect, it } from 'vitest'
import { createKeyOrder } from './etcd-order.ts'

/** Starts work that ends when it is told to, and notes when it begins. */
function scripted() {
  const order = createKeyOrder()
  const begun: string[] = []
  const ends = new Map<string, PromiseWithResolvers<void>>()
  const run = (name: string, keys?: string[], compared?: string[]): Promise<void> => {
    const end = Promise.withResolvers<void>()
    ends.set(name, end)
    const running = order.run(
      keys,
      () => {
        begun.push(name)
        return end.promise
      },
      compared,
    )
    return running.catch(() => {})
  }
  const settle = () => new Promise(resolve => setImmediate(resolve))
  return {
    order,
    begun,
    run,
    async end(name: string, error?: Error) {
      if (error === undefined) ends.get(name)?.resolve()
      else ends.get(name)?.reject(error)
      await settle()
    },
  }
}

describe('the order of writes to etcd', () => {
  it('is kept for those that share a key, and for no others', async () => {
    const { run, begun, end, order } = scripted()
    run('first', ['a', 'b'])
    run('second', ['b', 'c'])
    run('third', ['c'])
    run('apart', ['d'])
    expect(begun).toEqual(['first', 'apart'])
    await end('first')
    expect(begun).toEqual(['first', 'apart', 'second'])
    await end('second', new Error('lost'))
    expect(begun).toEqual(['first', 'apart', 'second', 'third'])
    await end('third')
    await end('apart')
    expect(order.size()).toBe(0)
    await order.idle()
  })

  it('lets those that compare a key go together, after what writes it', async () => {
    const { run, begun, end, order } = scripted()
    run('write', ['a'])
    run('compare', ['b'], ['a'])
    run('compare too', ['c'], ['a'])
    run('write again', ['a'])
    run('compare late', ['d'], ['a'])
    expect(begun).toEqual(['write'])
    await end('write')
    expect(begun).toEqual(['write', 'compare', 'compare too'])
    await end('compare')
    expect(begun).toHaveLength(3)
    await end('compare too')
    expect(begun).toEqual(['write', 'compare', 'compare too', 'write again'])
    await end('write again')
    expect(begun.at(-1)).toBe('compare late')
    run('write last', ['a'])
    expect(begun.at(-1)).toBe('compare late')
    await end('compare late')
    expect(begun.at(-1)).toBe('write last')
    await end('write last')
    expect(order.size()).toBe(0)
  })

  it('has what may touch any key wait for all, and all for that', async () => {
    const { run, begun, end } = scripted()
    run('one', ['a'])
    run('two', ['b'])
    run('all', undefined)
    run('later', ['c'])
    run('all again', undefined)
    await end('one')
    expect(begun).toEqual(['one', 'two'])
    await end('two')
    expect(begun).toEqual(['one', 'two', 'all'])
    await end('all')
    expect(begun).toEqual(['one', 'two', 'all', 'later'])
    await end('later')
    expect(begun).toEqual(['one', 'two', 'all', 'later', 'all again'])
    await end('all again')
  })
})
