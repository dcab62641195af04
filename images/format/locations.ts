import { assert, failure, type MacfleetError } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { chunkBytes, digestOf, hashOf } from '../layer-index.ts'
import { createVarintReader, writeVarint } from '../varint.ts'

/** A blob of chunks, one zstd frame each, one after another. */
export interface Pack {
  digest: string
  sizeBytes: number
}

/** Where one chunk lies: these bytes of a pack are a zstd frame of its plain bytes. */
export interface ChunkLocation {
  pack: Pack
  offsetBytes: number
  lengthBytes: number
}

/** Where the chunks of one layer lie in a registry. */
export interface LayerLocations {
  /** In order of first use. */
  packs: readonly Pack[]
  chunkCount: number
  /** Where a chunk lies, by its number in the layer. */
  at(chunk: number): ChunkLocation
}

/** How much locations may ask of whoever reads them. */
export type LocationBounds = Pick<Limits, 'imagePacks' | 'packBytes'>

/**
 * Bytes that a frame may have at most: bytes that zstd can't make smaller grow by a header of each
 * block.
 */
export const frameBytes = chunkBytes + 8192

const magic = Buffer.from('macfleet-packs\0\x01', 'latin1')
const hashBytes = 32

/**
 * Writes where a layer's chunks lie. Canonical like the layer's index: a magic of 16 bytes (the
 * last is the version), then LEB128 varints: the count of packs, and for each its 32 bytes of hash
 * and its size; the count of chunks, and for each: 0 when it begins where the one before it ends
 * (the first: at the begin of the first pack), else the pack's number, from 1, and the offset in
 * it; and then the length of its frame. Packs are numbered in the order of their first use.
 */
export function encodeLocations(chunks: readonly ChunkLocation[]): Buffer {
  const packs = new Map<string, { number: number; pack: Pack }>()
  for (const { pack } of chunks) {
    if (!packs.has(pack.digest)) packs.set(pack.digest, { number: packs.size + 1, pack })
  }
  const numbers: number[] = []
  const parts: Buffer[] = [magic]
  const flush = () => parts.push(Buffer.from(numbers.splice(0)))
  writeVarint(numbers, packs.size)
  for (const { pack } of packs.values()) {
    flush()
    parts.push(hashOf(pack.digest))
    writeVarint(numbers, pack.sizeBytes)
  }
  writeVarint(numbers, chunks.length)
  flush()
  let [lastPack, endBytes] = [1, 0]
  for (const { pack, offsetBytes, lengthBytes } of chunks) {
    const { number } = packs.get(pack.digest) ?? { number: 0 }
    assert(offsetBytes + lengthBytes <= pack.sizeBytes, 'a chunk lies in its pack')
    if (number === lastPack && offsetBytes === endBytes) {
      writeVarint(numbers, 0)
    } else {
      writeVarint(numbers, number)
      writeVarint(numbers, offsetBytes)
    }
    writeVarint(numbers, lengthBytes)
    lastPack = number
    endBytes = offsetBytes + lengthBytes
    if (numbers.length > 65_536) flush()
  }
  flush()
  return Buffer.concat(parts)
}

/**
 * Reads locations that anybody may have written. Nothing says that a chunk is really there: its
 * digest decides when it has been read.
 * @param chunkCount of the layer, as its index says
 * @throws layerLocationsInvalid for anything but the canonical spelling within the bounds
 */
export function decodeLocations(
  bytes: Uint8Array,
  chunkCount: number,
  bounds: LocationBounds,
): LayerLocations {
  const data = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (!data.subarray(0, magic.length).equals(magic)) throw invalid('they do not begin like some')
  const reader = createVarintReader(data, magic.length, invalid)
  const packs = readPacks(reader, bounds)
  if (reader.number() !== chunkCount) throw invalid('they are not for as many chunks')
  const packOf = new Uint32Array(chunkCount)
  const offsets = new Float64Array(chunkCount)
  const lengths = new Uint32Array(chunkCount)
  let [number, endBytes, used] = [1, 0, 0]
  for (let chunk = 0; chunk < chunkCount; chunk++) {
    const said = reader.number()
    if (said !== 0) {
      const offsetBytes = reader.number()
      if (said === number && offsetBytes === endBytes) throw invalid('a place has a longer form')
      number = said
      endBytes = offsetBytes
    }
    if (number > used + 1) throw invalid('its packs are not in order of use')
    used = Math.max(used, number)
    const pack = packs[number - 1]
    if (pack === undefined) throw invalid('a chunk is in no pack')
    const lengthBytes = reader.number()
    if (lengthBytes === 0) throw invalid('a frame is empty')
    if (lengthBytes > frameBytes) throw invalid('a frame is too large')
    if (endBytes + lengthBytes > pack.sizeBytes) throw invalid('a frame ends outside of its pack')
    packOf[chunk] = number - 1
    offsets[chunk] = endBytes
    lengths[chunk] = lengthBytes
    endBytes += lengthBytes
  }
  if (used !== packs.length) throw invalid('a pack has no chunk')
  if (!reader.atEnd()) throw invalid('there is more after their end')
  return {
    packs,
    chunkCount,
    at(chunk) {
      const pack = packs[packOf[chunk] ?? packs.length]
      assert(pack !== undefined, `the layer has a chunk ${chunk}`)
      return { pack, offsetBytes: offsets[chunk] ?? 0, lengthBytes: lengths[chunk] ?? 0 }
    },
  }
}

function readPacks(
  reader: ReturnType<typeof createVarintReader>,
  bounds: LocationBounds,
): readonly Pack[] {
  const count = reader.number()
  if (count > bounds.imagePacks) throw invalid('they name too many packs')
  const packs = new Map<string, Pack>()
  for (let at = 0; at < count; at++) {
    const digest = digestOf(reader.bytes(hashBytes))
    const sizeBytes = reader.number()
    if (sizeBytes > bounds.packBytes) throw invalid('a pack is too large')
    if (packs.has(digest)) throw invalid('a pack is named twice')
    packs.set(digest, { digest, sizeBytes })
  }
  return [...packs.values()]
}

function invalid(detail: string): MacfleetError {
  return failure('layerLocationsInvalid', { detail })
}
