import fc from 'fast-check'
import { expect, test } from 'vitest'
import { readJsonLines } from './json-lines.ts'

async function read(chunks: (string | Buffer)[], limitBytes = 1000): Promise<unknown[]> {
  async function* stream() {
    yield* chunks
  }
  return Array.fromAsync(readJsonLines(stream(), limitBytes, 'GET /x'))
}

test('lines come back however they are cut into chunks', async () => {
  const values = fc.array(fc.record({ text: fc.string({ unit: 'grapheme' }) }), { maxLength: 8 })
  await fc.assert(
    fc.asyncProperty(values, fc.integer({ min: 1, max: 7 }), async (expected, size) => {
      const bytes = Buffer.from(expected.map(value => `${JSON.stringify(value)}\n`).join(''))
      const chunks: Buffer[] = []
      for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.subarray(at, at + size))
      expect(await read(chunks)).toEqual(expected)
    }),
  )
})

test('a line that was cut off is not believed, one without end is refused', async () => {
  expect(await read(['{"a":1}\n{"b"'])).toEqual([{ a: 1 }])
  await expect(read(['x'.repeat(1001)])).rejects.toThrow('more than 1000 bytes')
  await expect(read(['{nope}\n'])).rejects.toThrow('a line is no JSON')
})
