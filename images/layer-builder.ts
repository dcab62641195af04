import { createHash, type Hash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { assert } from '../base/errors.ts'
import {
  blockBytes,
  chunkBytes,
  digestOf,
  type Extent,
  type LayerChunk,
  type LayerIndex,
} from './layer-index.ts'

/** Makes the index of a layer out of a disk's bytes, window by window. */
export interface LayerBuilder {
  /**
   * Takes one window of the disk: `chunkBytes` of it, fewer at its end, a whole number of blocks.
   * Windows come in the disk's order; those left out are holes.
   * @returns the extents in it that are not zero, by their place on the disk
   */
  addWindow(offsetBytes: number, bytes: Buffer): Extent[]
  finish(virtualSizeBytes: number): LayerIndex
}

const zeros = Buffer.alloc(blockBytes)
const blocksMax = chunkBytes / blockBytes
/**
 * A chunk ends behind a block of which the checksum says so, one in 64, when it has 256 KiB; so it
 * has 512 KiB on average. The same run of blocks is cut alike wherever it lies: a rebuilt image, in
 * which all that follows a new file has moved, keeps most of its chunks. The numbers are measured,
 * see docs/IMAGE-FORMAT.md.
 */
const blocksMin = 64
const oneBlockIn = 64
/** Of a block, these at its begin are looked at: any rule will do that depends on content alone. */
const sampleBytes = 256

/** A builder with nothing in it. */
export function createLayerBuilder(): LayerBuilder {
  const chunks: LayerChunk[] = []
  let open: { hash: Hash; extents: Extent[]; blocks: number } | undefined
  const close = (): void => {
    if (open === undefined) return
    chunks.push({ digest: digestOf(open.hash.digest()), extents: open.extents })
    open = undefined
  }
  /** A run of blocks with data: `bytes` of the window from `start` on. */
  const addRun = (window: Buffer, run: Extent, start: number): void => {
    const end = start + run.lengthBytes
    const last = open?.extents.at(-1)
    if (last && run.offsetBytes - last.offsetBytes - last.lengthBytes >= chunkBytes) close()
    for (let at = start; at < end; ) {
      open ??= { hash: createHash('sha256'), extents: [], blocks: 0 }
      const cut = findCut(window, at, end, open.blocks)
      const lengthBytes = cut.end - at
      open.hash.update(window.subarray(at, cut.end))
      open.blocks += lengthBytes / blockBytes
      append(open.extents, { offsetBytes: run.offsetBytes + at - start, lengthBytes })
      at = cut.end
      if (cut.isEnd) close()
    }
  }
  return {
    addWindow(offsetBytes, bytes) {
      assert(offsetBytes % chunkBytes === 0, 'a window begins on its border')
      assert(bytes.length % blockBytes === 0, 'a window is made of whole blocks')
      const extents = findExtents(offsetBytes, bytes)
      for (const extent of extents) addRun(bytes, extent, extent.offsetBytes - offsetBytes)
      return extents
    },
    finish(virtualSizeBytes) {
      close()
      return { virtualSizeBytes, chunks, zeros: [] }
    },
  }
}

/** How far a chunk that has so many blocks goes on in a run, and whether it ends there. */
function findCut(window: Buffer, start: number, end: number, blocks: number) {
  const limit = start + (blocksMax - blocks) * blockBytes
  const first = start + Math.max(0, blocksMin - 1 - blocks) * blockBytes
  for (let at = first; at < Math.min(end, limit); at += blockBytes) {
    const next = at + blockBytes
    if (crc32(window.subarray(at, at + sampleBytes)) % oneBlockIn === 0)
      return { end: next, isEnd: true }
  }
  return limit <= end ? { end: limit, isEnd: true } : { end, isEnd: false }
}

function append(extents: Extent[], extent: Extent): void {
  const last = extents.at(-1)
  if (last !== undefined && last.offsetBytes + last.lengthBytes === extent.offsetBytes) {
    last.lengthBytes += extent.lengthBytes
  } else {
    extents.push(extent)
  }
}

/** The runs of blocks that are not all zero. */
function findExtents(windowOffsetBytes: number, bytes: Buffer): Extent[] {
  const extents: Extent[] = []
  for (let at = 0; at < bytes.length; at += blockBytes) {
    if (isZero(bytes, at)) continue
    append(extents, { offsetBytes: windowOffsetBytes + at, lengthBytes: blockBytes })
  }
  return extents
}

function isZero(bytes: Buffer, start: number): boolean {
  // Most blocks with data have some in their first bytes: the native comparison costs a call.
  if (bytes[start] !== 0) return false
  return bytes.compare(zeros, 0, blockBytes, start, start + blockBytes) === 0
}
