import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { defaultLimits } from '../base/limits.ts'
import { createSeededRandom } from '../base/random.ts'
import { createLayerBuilder } from './layer-builder.ts'
import {
  blockBytes,
  chunkBytes,
  decodeLayerIndex,
  digestOf,
  encodeLayerIndex,
  extentBytes,
  type LayerChunk,
} from './layer-index.ts'

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

/** The chunks of a disk that has these bytes from an offset on. */
function chunksOf(data: Buffer, offsetBytes = 0): LayerChunk[] {
  const disk = Buffer.concat([Buffer.alloc(offsetBytes), data])
  const builder = createLayerBuilder()
  for (let at = 0; at < disk.length; at += chunkBytes) {
    builder.addWindow(at, disk.subarray(at, at + chunkBytes))
  }
  return builder.finish(disk.length).chunks
}

test('a chunk is named by its bytes alone, and holds 256 KiB to 1 MiB', () => {
  const random = createSeededRandom(1)
  const parts = Array.from({ length: 40 }, (_, at) =>
    // Runs of data and holes of many lengths, and one of which no block has a cut.
    at === 7 ? Buffer.alloc(5 * chunkBytes, 'x') : random.bytes((1 + (at % 13)) * 16 * blockBytes),
  )
  const data = Buffer.concat(parts.flatMap(part => [part, Buffer.alloc(blockBytes)]))
  const chunks = chunksOf(data)
  expect(chunks.length).toBeGreaterThan(20)
  let endBytes = 0
  for (const [number, { digest, extents }] of chunks.entries()) {
    const hash = createHash('sha256')
    for (const { offsetBytes, lengthBytes } of extents) {
      expect(offsetBytes).toBeGreaterThanOrEqual(endBytes)
      endBytes = offsetBytes + lengthBytes
      hash.update(data.subarray(offsetBytes, endBytes))
    }
    expect(digestOf(hash.digest())).toBe(digest)
    expect(extentBytes(extents)).toBeLessThanOrEqual(chunkBytes)
    if (number === chunks.length - 1) continue
    expect(extentBytes(extents)).toBeGreaterThanOrEqual(chunkBytes / 4)
  }
  const layer = { virtualSizeBytes: data.length, chunks, zeros: [] }
  expect(decodeLayerIndex(encodeLayerIndex(layer), defaultLimits)).toEqual(layer)
  const allBytes = chunks.reduce((sum, { extents }) => sum + extentBytes(extents), 0)
  expect(allBytes).toBe(parts.reduce((sum, part) => sum + part.length, 0))
})

test('what has moved keeps its chunks, but for a few where it begins', () => {
  const data = createSeededRandom(2).bytes(16 * chunkBytes)
  const known = new Set(chunksOf(data).map(({ digest }) => digest))
  const inserted = Buffer.concat([
    data.subarray(0, 5 * chunkBytes),
    createSeededRandom(3).bytes(3 * blockBytes),
    data.subarray(5 * chunkBytes),
  ])
  for (const moved of [chunksOf(data, 7 * blockBytes), chunksOf(inserted, chunkBytes)]) {
    const fresh = moved.filter(({ digest }) => !known.has(digest))
    expect(moved.length).toBeGreaterThan(25)
    expect(fresh.length).toBeLessThanOrEqual(5)
  }
})
