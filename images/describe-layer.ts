import { createHash } from 'node:crypto'
import type { ConfigLayer } from './image-record.ts'
import {
  decodeLayerIndex,
  digestOf,
  extentBytes,
  type LayerIndex,
  type LayerIndexBounds,
} from './layer-index.ts'

/**
 * What a config says of a layer, from the layer's encoded index.
 * @throws layerIndexInvalid
 */
export function describeLayer(
  encoded: Uint8Array,
  bounds: LayerIndexBounds,
): { virtualSizeBytes: number; layer: ConfigLayer; index: LayerIndex } {
  const index = decodeLayerIndex(encoded, bounds)
  const { virtualSizeBytes, chunks } = index
  let dataBytes = 0
  let extentCount = 0
  for (const { extents } of chunks) {
    dataBytes += extentBytes(extents)
    extentCount += extents.length
  }
  const digest = digestOf(createHash('sha256').update(encoded).digest())
  const layer = { digest, dataBytes, chunkCount: chunks.length, extentCount }
  return { virtualSizeBytes, layer, index }
}
