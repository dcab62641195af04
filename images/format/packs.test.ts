import { randomBytes } from 'node:crypto'
import { constants, zstdCompressSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { isFailure } from '../../base/errors.ts'
import { chunkBytes } from '../layer-index.ts'
import { frameBytes } from './locations.ts'
import { checkChunk, createPackBuilder, decodeFrame, digestBytes, encodeFrame } from './packs.ts'

const detailOf = (work: () => unknown): string => {
  try {
    work()
    return 'accepted'
  } catch (error) {
    if (isFailure(error, 'chunkInvalid')) return error.message
    throw error
  }
}

test('a chunk comes back from its frame, which is never much larger', () => {
  for (const plain of [Buffer.alloc(4096), Buffer.alloc(chunkBytes), randomBytes(chunkBytes)]) {
    const frame = encodeFrame(plain)
    expect(frame.length).toBeLessThanOrEqual(frameBytes)
    expect(decodeFrame(frame, plain.length).equals(plain)).toBe(true)
    expect(encodeFrame(plain)).toEqual(frame)
  }
})

test('a frame that holds more or fewer bytes than its chunk is refused', () => {
  const frame = encodeFrame(Buffer.alloc(8192))
  expect(detailOf(() => decodeFrame(frame, 4096))).toContain('can not be decoded')
  expect(detailOf(() => decodeFrame(frame, 12_288))).toContain('fewer bytes')
})

test('a bomb takes no more memory than the chunk would', () => {
  const bomb = zstdCompressSync(Buffer.alloc(256 * 1024 * 1024))
  expect(bomb.length).toBeLessThan(64 * 1024)
  const before = process.memoryUsage().rss
  expect(detailOf(() => decodeFrame(bomb, chunkBytes))).toContain('can not be decoded')
  expect(process.memoryUsage().rss - before).toBeLessThan(32 * 1024 * 1024)
  // A window of 128 MiB, and no size in the header that would make it smaller.
  const params = { [constants.ZSTD_c_windowLog]: 27, [constants.ZSTD_c_contentSizeFlag]: 0 }
  const wide = zstdCompressSync(Buffer.alloc(64 * 1024 * 1024), { params })
  expect(detailOf(() => decodeFrame(wide, chunkBytes))).toContain('can not be decoded')
})

test('damage is told, whatever it is', () => {
  const plain = randomBytes(8192)
  const frame = encodeFrame(plain)
  for (let at = 0; at < frame.length; at += 97) {
    const damaged = Buffer.from(frame)
    damaged[at] = (damaged[at] ?? 0) ^ 0xff
    const read = () => checkChunk(decodeFrame(damaged, plain.length), digestBytes(plain))
    expect(detailOf(read)).not.toBe('accepted')
    expect(detailOf(() => decodeFrame(frame.subarray(0, at), plain.length))).not.toBe('accepted')
  }
  checkChunk(decodeFrame(frame, plain.length), digestBytes(plain))
})

test('a pack is its frames one after another', () => {
  const pack = createPackBuilder(100)
  expect(pack.add(Buffer.alloc(60, 1))).toBe(0)
  expect(pack.hasRoom(41)).toBe(false)
  expect(pack.hasRoom(40)).toBe(true)
  expect(pack.add(Buffer.alloc(40, 2))).toBe(60)
  expect(pack.sizeBytes).toBe(100)
  expect(pack.digest()).toBe(digestBytes(Buffer.concat([Buffer.alloc(60, 1), Buffer.alloc(40, 2)])))
})
