import fc from 'fast-check'
import { expect, test } from 'vitest'
import { isFailure } from '../base/errors.ts'
import { defaultLimits } from '../base/limits.ts'
import {
  blockBytes,
  chunkBytes,
  decodeLayerIndex,
  digestOf,
  type Extent,
  encodeLayerIndex,
  type LayerIndex,
} from './layer-index.ts'

const hash = fc.uint8Array({ minLength: 32, maxLength: 32 })
const extent = fc.record({ gap: fc.nat(5000), length: fc.integer({ min: 1, max: 16 }) })

/** Any index that follows the rules, built from gaps and lengths. */
const layerIndex: fc.Arbitrary<LayerIndex> = fc
  .record({
    chunks: fc.array(fc.tuple(hash, fc.array(extent, { minLength: 1, maxLength: 16 }))),
    tail: fc.integer({ min: 1, max: 1e9 }),
    zeroGap: fc.nat(100),
    isZeroed: fc.func(fc.boolean()),
  })
  .map(({ chunks, tail, zeroGap, isZeroed }) => {
    let block = 0
    const zeros: Extent[] = []
    const built = chunks.map(([bytes, extents]) => ({
      digest: digestOf(bytes),
      extents: extents.map(({ gap, length }, at) => {
        const start = block + (at > 0 ? gap + 1 : gap)
        // Zeros lie in some gaps between data: all of the gap, or all but one block at each end.
        const margin = isZeroed(start) ? 1 : 0
        if (start - block > 2 * margin && isZeroed(block)) {
          zeros.push({
            offsetBytes: (block + margin) * blockBytes,
            lengthBytes: (start - block - 2 * margin) * blockBytes,
          })
        }
        block = start + length
        return { offsetBytes: start * blockBytes, lengthBytes: length * blockBytes }
      }),
    }))
    if (zeroGap > 0) {
      zeros.push({ offsetBytes: (block + zeroGap) * blockBytes, lengthBytes: blockBytes })
    }
    return { virtualSizeBytes: (block + zeroGap + tail) * blockBytes, chunks: built, zeros }
  })

const detailOf = (bytes: Uint8Array): string => {
  try {
    decodeLayerIndex(bytes, defaultLimits)
    return 'accepted'
  } catch (error) {
    if (isFailure(error, 'layerIndexInvalid')) return error.message
    throw error
  }
}

test('what is written is read back, and has one spelling', () => {
  fc.assert(
    fc.property(layerIndex, index => {
      const bytes = encodeLayerIndex(index)
      expect(decodeLayerIndex(bytes, defaultLimits)).toEqual(index)
      expect(encodeLayerIndex(decodeLayerIndex(bytes, defaultLimits))).toEqual(bytes)
    }),
  )
})

test('a changed index is refused by its own failure or is another valid one', () => {
  const change = fc.tuple(fc.nat(), fc.nat(255))
  fc.assert(
    fc.property(
      layerIndex,
      fc.array(change, { minLength: 1, maxLength: 4 }),
      fc.nat(),
      (index, changes, cut) => {
        const bytes = encodeLayerIndex(index)
        for (const [at, value] of changes) bytes[at % bytes.length] = value
        const damaged = cut % 3 === 0 ? bytes.subarray(0, cut % bytes.length) : bytes
        if (detailOf(damaged) !== 'accepted') return
        expect(encodeLayerIndex(decodeLayerIndex(damaged, defaultLimits))).toEqual(damaged)
      },
    ),
  )
})

test('any bytes after the magic are refused or valid', () => {
  const magic = encodeLayerIndex({ virtualSizeBytes: blockBytes, chunks: [], zeros: [] }).subarray(
    0,
    16,
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), bytes => {
      detailOf(Buffer.concat([magic, bytes]))
    }),
  )
})

test('each rule has its own sentence', () => {
  const zeros = Buffer.alloc(32)
  const magic = encodeLayerIndex({ virtualSizeBytes: blockBytes, chunks: [], zeros: [] }).subarray(
    0,
    16,
  )
  const of = (...parts: (number | Buffer)[]) =>
    detailOf(
      Buffer.concat([
        magic,
        ...parts.map(part => (typeof part === 'number' ? Buffer.of(part) : part)),
      ]),
    )
  expect(of(9, 1, 1, 0, 1, zeros, 0)).toBe('accepted')
  expect(detailOf(Buffer.from('not an index at all'))).toContain('does not begin like one')
  expect(of(0, 0)).toContain('has no size')
  expect(of(Buffer.from('ffffffffffff07', 'hex'), 0)).toContain('its disk is too large')
  expect(of(Buffer.from('ffffffffffffffff', 'hex'))).toContain('a number is too large')
  expect(of(9, Buffer.from('ffffff7f', 'hex'))).toContain('too many chunks')
  expect(of(9, 1, 0, zeros)).toContain('a chunk is empty')
  expect(of(9, 1, 1, 0, 0, zeros)).toContain('an extent is empty')
  expect(of(9, 1, 2, 0, 1, 0, 1, zeros)).toContain('touch')
  expect(of(9, 1, 1, 9, 1, zeros)).toContain('beyond the end')
  expect(of(9, 1, 1, 0, 1, zeros, 0, 0)).toContain('more after its end')
  expect(of(9, 1, 1, 0, 1)).toContain('ends too soon')
  expect(of(Buffer.from('8900', 'hex'), 0)).toContain('longer form')
  expect(of(Buffer.from('ff07', 'hex'), 1, 1, 0, Buffer.from('8102', 'hex'), zeros)).toContain(
    'a chunk is too large',
  )
  expect(of(Buffer.from('ff07', 'hex'), 1, Buffer.from('8102', 'hex'))).toContain(
    'too many extents',
  )
})

test('extents have a bound together, whatever chunks they are in', () => {
  const hash = `sha256:${'a'.repeat(64)}`
  const extents = [0, 2, 4].map(at => ({ offsetBytes: at * blockBytes, lengthBytes: blockBytes }))
  const zero = { offsetBytes: 6 * blockBytes, lengthBytes: blockBytes }
  const virtualSizeBytes = 9 * blockBytes
  const chunks = [{ digest: hash, extents }]
  const encoded = encodeLayerIndex({ virtualSizeBytes, chunks, zeros: [zero] })
  const decode = (layerChunks: number) =>
    decodeLayerIndex(encoded, { ...defaultLimits, layerChunks })
  expect(() => decode(2)).toThrow('too many extents')
  expect(() => decode(3)).toThrow('too many zero extents')
  expect(decode(4).chunks).toEqual(chunks)
})

test('what is zero is in order, apart from itself and from all data', () => {
  const hash = Buffer.alloc(32)
  const magic = encodeLayerIndex({ virtualSizeBytes: blockBytes, chunks: [], zeros: [] })
  const of = (...parts: number[]) =>
    detailOf(
      Buffer.concat([magic.subarray(0, 16), Buffer.of(9, 1, 1, 2, 3), hash, ...bytes(parts)]),
    )
  const bytes = (parts: number[]) => [Buffer.from(parts)]
  // The chunk lies on the blocks 2 to 4 of 9.
  expect(of(2, 0, 2, 3, 4)).toBe('accepted')
  expect(of(1, 0, 3)).toContain('it has data where it says zero')
  expect(of(1, 4, 1)).toContain('it has data where it says zero')
  expect(of(2, 0, 1, 0, 1)).toContain('two zero extents touch')
  expect(of(1, 5, 0)).toContain('a zero extent is empty')
  expect(of(1, 5, 5)).toContain('beyond the end')
  expect(of(1, 5)).toContain('ends too soon')
  expect(of(0xff, 0xff, 0xff, 0x7f)).toContain('too many zero extents')
})

test('an image of 16 GiB that is full has an index of less than 700 KiB', () => {
  const chunks = Array.from({ length: 16 * 1024 }, (_, at) => ({
    digest: digestOf(Buffer.alloc(32, at)),
    extents: [{ offsetBytes: at * chunkBytes, lengthBytes: chunkBytes }],
  }))
  const bytes = encodeLayerIndex({ virtualSizeBytes: 16 * 1024 * chunkBytes, chunks, zeros: [] })
  expect(bytes.length).toBeLessThan(700 * 1024)
})
