import { assert, failure, type MacfleetError } from '../base/errors.ts'
import { createVarintReader, writeVarint } from './varint.ts'

/** Disks are cut into blocks of this size; extents begin and end on their borders. */
export const blockBytes = 4096

/**
 * Bytes that a chunk holds at most, and the width of the window of disk that an import packs into
 * one.
 */
export const chunkBytes = 1024 * 1024

/** A run of bytes on a disk; offset and length are multiples of `blockBytes`. */
export interface Extent {
  offsetBytes: number
  lengthBytes: number
}

/** Extents that travel together. */
export interface LayerChunk {
  /** `sha256:` and the hash, in hex, of the extents' bytes, one after another. */
  digest: string
  /** In order of the disk; two that touch are written as one. */
  extents: Extent[]
}

/**
 * What a layer holds and where on the disk it goes. What neither a chunk nor `zeros` covers is as
 * in the layer below it, and zero where there is none. It says nothing of where the bytes are
 * kept: in a raw file here, in packs of a registry elsewhere.
 */
export interface LayerIndex {
  /** Size of the disk, a multiple of `blockBytes`. */
  virtualSizeBytes: number
  /** In order of the disk; no extent is in two of them. */
  chunks: LayerChunk[]
  /** What became zero or was trimmed, in order, touching nothing; empty in a layer with no parent. */
  zeros: Extent[]
}

/** How much a layer index may ask of whoever reads it. */
export interface LayerIndexBounds {
  /** See Limits.diskBytes. */
  diskBytes: number
  /** See Limits.layerChunks. */
  layerChunks: number
}

const magic = Buffer.from('macfleet-layer\0\x01', 'latin1')
const hashBytes = 32
const blocksPerChunk = chunkBytes / blockBytes

/**
 * Writes a layer index. The form is canonical, one index has one spelling, because its digest
 * names the layer: a magic of 16 bytes (the last is the version), then numbers in blocks as LEB128
 * varints: the disk's size, the count of chunks, and for each chunk its count of extents, each
 * extent as the gap since the end of the one before and its length, and the 32 bytes of the
 * chunk's hash; then the count of zeros, and each as gap and length, from the disk's begin again.
 */
export function encodeLayerIndex(index: LayerIndex): Buffer {
  const numbers: number[] = []
  const parts: Buffer[] = [magic]
  const flush = () => parts.push(Buffer.from(numbers.splice(0)))
  writeVarint(numbers, inBlocks(index.virtualSizeBytes))
  writeVarint(numbers, index.chunks.length)
  let endBlock = 0
  for (const chunk of index.chunks) {
    writeVarint(numbers, chunk.extents.length)
    for (const extent of chunk.extents) {
      const startBlock = inBlocks(extent.offsetBytes)
      assert(startBlock >= endBlock, 'the extents of a layer are in order')
      writeVarint(numbers, startBlock - endBlock)
      writeVarint(numbers, inBlocks(extent.lengthBytes))
      endBlock = startBlock + inBlocks(extent.lengthBytes)
    }
    flush()
    parts.push(hashOf(chunk.digest))
  }
  writeVarint(numbers, index.zeros.length)
  endBlock = 0
  for (const { offsetBytes, lengthBytes } of index.zeros) {
    writeVarint(numbers, inBlocks(offsetBytes) - endBlock)
    writeVarint(numbers, inBlocks(lengthBytes))
    endBlock = inBlocks(offsetBytes + lengthBytes)
  }
  flush()
  return Buffer.concat(parts)
}

/**
 * Reads a layer index that anybody may have written.
 * @throws layerIndexInvalid for anything but the canonical spelling of an index within the bounds
 */
export function decodeLayerIndex(bytes: Uint8Array, bounds: LayerIndexBounds): LayerIndex {
  const data = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (!data.subarray(0, magic.length).equals(magic)) throw invalid('it does not begin like one')
  const reader = createVarintReader(data, magic.length, invalid)
  const diskBlocks = reader.number()
  if (diskBlocks === 0) throw invalid('its disk has no size')
  if (diskBlocks > bounds.diskBytes / blockBytes) throw invalid('its disk is too large')
  const count = reader.number()
  if (count > bounds.layerChunks) throw invalid('it has too many chunks')
  const chunks: LayerChunk[] = []
  let endBlock = 0
  // In the index one takes 2 bytes, in memory 70: they need a bound of their own.
  let extentsLeft = bounds.layerChunks
  for (let number = 0; number < count; number++) {
    const { extents, nextBlock } = readExtents(reader.number, endBlock)
    endBlock = nextBlock
    extentsLeft -= extents.length
    if (extentsLeft < 0) throw invalid('it has too many extents')
    if (endBlock > diskBlocks) throw invalid('an extent lies beyond the end of its disk')
    chunks.push({ digest: digestOf(reader.bytes(hashBytes)), extents })
  }
  const zeros = readZeros(reader.number, diskBlocks, extentsLeft)
  if (!reader.atEnd()) throw invalid('there is more after its end')
  const layer = { virtualSizeBytes: diskBlocks * blockBytes, chunks, zeros }
  if (zerosMeetChunks(layer)) throw invalid('it has data where it says zero')
  return layer
}

function readZeros(number: () => number, diskBlocks: number, most: number): Extent[] {
  const count = number()
  if (count > most) throw invalid('it has too many zero extents')
  const zeros: Extent[] = []
  let endBlock = 0
  for (let at = 0; at < count; at++) {
    const gap = number()
    const length = number()
    if (at > 0 && gap === 0) throw invalid('two zero extents touch')
    if (length === 0) throw invalid('a zero extent is empty')
    zeros.push({ offsetBytes: (endBlock + gap) * blockBytes, lengthBytes: length * blockBytes })
    endBlock += gap + length
    if (endBlock > diskBlocks) throw invalid('a zero extent lies beyond the end of its disk')
  }
  return zeros
}

/** Both are in order of the disk: one walk over both. */
function zerosMeetChunks({ chunks, zeros }: LayerIndex): boolean {
  let at = 0
  for (const { extents } of chunks) {
    for (const { offsetBytes, lengthBytes } of extents) {
      for (let zero = zeros[at]; zero !== undefined; zero = zeros[at]) {
        if (zero.offsetBytes + zero.lengthBytes > offsetBytes) break
        at++
      }
      const zero = zeros[at]
      if (zero !== undefined && zero.offsetBytes < offsetBytes + lengthBytes) return true
    }
  }
  return false
}

function readExtents(number: () => number, startBlock: number) {
  const count = number()
  if (count === 0) throw invalid('a chunk is empty')
  if (count > blocksPerChunk) throw invalid('a chunk has too many extents')
  const extents: Extent[] = []
  let endBlock = startBlock
  let chunkBlocks = 0
  for (let at = 0; at < count; at++) {
    const gap = number()
    const length = number()
    if (at > 0 && gap === 0) throw invalid('two extents of a chunk touch')
    if (length === 0) throw invalid('an extent is empty')
    chunkBlocks += length
    if (chunkBlocks > blocksPerChunk) throw invalid('a chunk is too large')
    extents.push({ offsetBytes: (endBlock + gap) * blockBytes, lengthBytes: length * blockBytes })
    endBlock += gap + length
    if (!Number.isSafeInteger(endBlock * blockBytes)) throw invalid('an extent is too far out')
  }
  return { extents, nextBlock: endBlock }
}

/** Bytes that the extents of a chunk hold together. */
export function extentBytes(extents: readonly Extent[]): number {
  return extents.reduce((sum, extent) => sum + extent.lengthBytes, 0)
}

/** `sha256:` and the hash in hex. */
export function digestOf(hash: Uint8Array): string {
  return `sha256:${Buffer.from(hash.buffer, hash.byteOffset, hash.byteLength).toString('hex')}`
}

/** The 32 bytes behind a digest. */
export function hashOf(digest: string): Buffer {
  assert(/^sha256:[0-9a-f]{64}$/.test(digest), `${digest} is a digest`)
  return Buffer.from(digest.slice('sha256:'.length), 'hex')
}

function inBlocks(bytes: number): number {
  assert(bytes % blockBytes === 0, `${bytes} bytes are whole blocks`)
  return bytes / blockBytes
}

function invalid(detail: string): MacfleetError {
  return failure('layerIndexInvalid', { detail })
}
