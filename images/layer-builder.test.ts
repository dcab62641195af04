import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createLayerBuilder } from './layer-builder.ts'
import { blockBytes, chunkBytes, digestOf, extentBytes } from './layer-index.ts'

test('what is not zero is found, whatever lies where', () => {
  const block = fc.constantFrom('zero', 'data', 'last byte', 'first byte')
  fc.assert(
    fc.property(fc.array(block, { minLength: 1, maxLength: 256 }), kinds => {
      const bytes = Buffer.alloc(kinds.length * blockBytes)
      for (const [at, kind] of kinds.entries()) {
        if (kind === 'data') bytes.fill(at % 255 || 1, at * blockBytes, (at + 1) * blockBytes)
        if (kind === 'last byte') bytes[(at + 1) * blockBytes - 1] = 1
        if (kind === 'first byte') bytes[at * blockBytes] = 1
      }
      const builder = createLayerBuilder()
      const extents = builder.addWindow(5 * chunkBytes, bytes)
      const rebuilt = Buffer.alloc(bytes.length)
      for (const { offsetBytes, lengthBytes } of extents) {
        const start = offsetBytes - 5 * chunkBytes
        bytes.copy(rebuilt, start, start, start + lengthBytes)
      }
      expect(rebuilt.equals(bytes)).toBe(true)
      expect(extentBytes(extents)).toBe(kinds.filter(kind => kind !== 'zero').length * blockBytes)
    }),
    { numRuns: 50 },
  )
})

test('a chunk is named by its bytes alone, so a moved one has the same name', () => {
  const bytes = Buffer.alloc(chunkBytes)
  bytes.fill('x', blockBytes, 3 * blockBytes)
  const builder = createLayerBuilder()
  builder.addWindow(0, bytes)
  builder.addWindow(chunkBytes, Buffer.alloc(chunkBytes))
  bytes.copyWithin(7 * blockBytes, blockBytes, 3 * blockBytes).fill(0, blockBytes, 3 * blockBytes)
  builder.addWindow(2 * chunkBytes, bytes)
  const { chunks } = builder.finish(3 * chunkBytes)
  const hash = createHash('sha256')
    .update('x'.repeat(2 * blockBytes))
    .digest()
  expect(chunks.map(({ digest }) => digest)).toEqual([digestOf(hash), digestOf(hash)])
  expect(chunks.map(({ extents }) => extents[0]?.offsetBytes)).toEqual([
    blockBytes,
    2 * chunkBytes + 7 * blockBytes,
  ])
})
