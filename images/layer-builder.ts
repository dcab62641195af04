import { createHash } from 'node:crypto'
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

const zeros = Buffer.alloc(chunkBytes)

/** A builder with nothing in it. */
export function createLayerBuilder(): LayerBuilder {
  const chunks: LayerChunk[] = []
  return {
    addWindow(offsetBytes, bytes) {
      assert(offsetBytes % chunkBytes === 0, 'a window begins on its border')
      assert(bytes.length % blockBytes === 0, 'a window is made of whole blocks')
      const extents = findExtents(offsetBytes, bytes)
      if (extents.length > 0) {
        chunks.push({ digest: hashExtents(offsetBytes, bytes, extents), extents })
      }
      return extents
    },
    finish: virtualSizeBytes => ({ virtualSizeBytes, chunks, zeros: [] }),
  }
}

/** The runs of blocks that are not all zero. */
function findExtents(windowOffsetBytes: number, bytes: Buffer): Extent[] {
  if (isZero(bytes, 0, bytes.length)) return []
  const extents: Extent[] = []
  let open: Extent | undefined
  for (let at = 0; at < bytes.length; at += blockBytes) {
    if (isZero(bytes, at, at + blockBytes)) {
      open = undefined
    } else if (open === undefined) {
      open = { offsetBytes: windowOffsetBytes + at, lengthBytes: blockBytes }
      extents.push(open)
    } else {
      open.lengthBytes += blockBytes
    }
  }
  return extents
}

function isZero(bytes: Buffer, start: number, end: number): boolean {
  // Most blocks with data have some in their first bytes: the native comparison costs a call.
  if (bytes[start] !== 0) return false
  return bytes.compare(zeros, 0, end - start, start, end) === 0
}

/** The name of the chunk that these extents make: the hash of their bytes, one after another. */
export function hashExtents(
  windowOffsetBytes: number,
  bytes: Buffer,
  extents: readonly Extent[],
): string {
  const hash = createHash('sha256')
  for (const { offsetBytes, lengthBytes } of extents) {
    const start = offsetBytes - windowOffsetBytes
    hash.update(bytes.subarray(start, start + lengthBytes))
  }
  return digestOf(hash.digest())
}
