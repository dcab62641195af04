import fc from 'fast-check'
import { expect, test } from 'vitest'
import { isFailure } from '../../base/errors.ts'
import { defaultLimits } from '../../base/limits.ts'
import { digestOf } from '../layer-index.ts'
import { type ChunkLocation, decodeLocations, encodeLocations, frameBytes } from './locations.ts'

const pack = fc.record({
  digest: fc.uint8Array({ minLength: 32, maxLength: 32 }).map(digestOf),
  sizeBytes: fc.integer({ min: 1, max: defaultLimits.packBytes }),
})
const place = fc.record({
  pack: fc.nat(),
  offset: fc.nat(),
  length: fc.nat(),
  follows: fc.boolean(),
})

/** Any locations that follow the rules; many chunks lie right behind the one before. */
const locations: fc.Arbitrary<ChunkLocation[]> = fc
  .tuple(
    fc.uniqueArray(pack, { minLength: 1, maxLength: 5, selector: ({ digest }) => digest }),
    fc.array(place, { maxLength: 40 }),
  )
  .map(([packs, places]) => {
    let last: ChunkLocation | undefined
    return places.map(({ pack: number, offset, length, follows }) => {
      const found = packs[number % packs.length]
      if (found === undefined) throw new Error('there is a pack')
      const endBytes = last === undefined ? 0 : last.offsetBytes + last.lengthBytes
      const goesOn = follows && last !== undefined && endBytes < last.pack.sizeBytes
      const of = goesOn && last ? last.pack : found
      const offsetBytes = goesOn ? endBytes : offset % of.sizeBytes
      const room = Math.min(of.sizeBytes - offsetBytes, frameBytes)
      last = { pack: of, offsetBytes, lengthBytes: 1 + (length % room) }
      return last
    })
  })

function read(bytes: Uint8Array, chunkCount: number): ChunkLocation[] {
  const decoded = decodeLocations(bytes, chunkCount, defaultLimits)
  return Array.from({ length: decoded.chunkCount }, (_, at) => decoded.at(at))
}

const detailOf = (bytes: Uint8Array, chunkCount: number): string => {
  try {
    read(bytes, chunkCount)
    return 'accepted'
  } catch (error) {
    if (isFailure(error, 'layerLocationsInvalid')) return error.message
    throw error
  }
}

test('what is written is read back', () => {
  fc.assert(
    fc.property(locations, chunks => {
      expect(read(encodeLocations(chunks), chunks.length)).toEqual(chunks)
    }),
  )
})

test('changed locations are refused by their own failure or are other valid ones', () => {
  fc.assert(
    fc.property(
      locations,
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }),
      fc.nat(),
      (chunks, changes, cut) => {
        const bytes = encodeLocations(chunks)
        for (const [at, value] of changes) bytes[at % bytes.length] = value
        const damaged = cut % 3 === 0 ? bytes.subarray(0, cut % bytes.length) : bytes
        if (detailOf(damaged, chunks.length) !== 'accepted') return
        expect(encodeLocations(read(damaged, chunks.length))).toEqual(damaged)
      },
    ),
  )
})

test('each rule has its own sentence', () => {
  const magic = encodeLocations([]).subarray(0, 16)
  const hash = (of: number) => Buffer.alloc(32, of)
  const bytesOf = (parts: (number | Buffer)[]) =>
    Buffer.concat([
      magic,
      ...parts.map(part => (typeof part === 'number' ? Buffer.of(part) : part)),
    ])
  const of = (chunkCount: number, ...parts: (number | Buffer)[]) =>
    detailOf(bytesOf(parts), chunkCount)
  expect(of(0, 0, 0)).toBe('accepted')
  // A pack of 9 bytes, two frames one after another.
  expect(of(2, 1, hash(1), 9, 2, 0, 5, 0, 4)).toBe('accepted')
  expect(detailOf(Buffer.from('something else altogether'), 0)).toContain('do not begin like some')
  expect(of(1, 1, hash(1), 9, 2, 0, 5, 0, 4)).toContain('not for as many chunks')
  expect(of(2, 1, hash(1), 9, 2, 0, 5, 0, 5)).toContain('outside of its pack')
  expect(of(1, 1, hash(1), 9, 1, 1, 6, 5)).toContain('outside of its pack')
  expect(of(1, 1, hash(1), 9, 1, 1, 0, 5)).toContain('longer form')
  expect(of(1, 1, hash(1), 9, 1, 0, 0)).toContain('a frame is empty')
  expect(of(1, 1, hash(1), 9, 1, 2, 0, 5)).toContain('not in order of use')
  expect(of(1, 0, 1, 0, 5)).toContain('a chunk is in no pack')
  expect(of(1, 2, hash(1), 9, hash(1), 9, 1, 0, 5)).toContain('named twice')
  expect(of(1, 2, hash(1), 9, hash(2), 9, 1, 0, 5)).toContain('a pack has no chunk')
  expect(of(0, 0, 0, 0)).toContain('more after their end')
  expect(of(1, 1, hash(1), 9)).toContain('end')
  const large = Buffer.from('ffffffff0f', 'hex')
  expect(of(1, 1, hash(1), large, 1, 0, 5)).toContain('a pack is too large')
  expect(of(1, 1, hash(1), Buffer.from('ffffff7f', 'hex'), 1, 0, large)).toContain(
    'a frame is too large',
  )
  expect(of(0, Buffer.from('ffffff7f', 'hex'))).toContain('too many packs')
})

test('chunks one after another cost four bytes each', () => {
  const of = { digest: digestOf(Buffer.alloc(32)), sizeBytes: 512 * 1024 * 1024 }
  const chunks = Array.from({ length: 500 }, (_, at) => ({
    ...{ pack: of, offsetBytes: at * 500_000, lengthBytes: 500_000 },
  }))
  expect(encodeLocations(chunks).length).toBeLessThan(500 * 4 + 100)
})
