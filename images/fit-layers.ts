import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { failure, type MacfleetError } from '../base/errors.ts'
import { describeLayer } from './describe-layer.ts'
import { layerFile } from './image-files.ts'
import type { ImageConfig } from './image-record.ts'
import type { LayerIndex, LayerIndexBounds } from './layer-index.ts'

/**
 * Reads the layers that a config names, whoever may have written both, and checks that they belong
 * together: digests, counts and sizes.
 * @param encoded the layers' indexes, base first
 * @throws imageConfigInvalid when they do not fit, layerIndexInvalid
 */
export function fitLayers(
  config: ImageConfig,
  encoded: readonly Uint8Array[],
  bounds: LayerIndexBounds,
): LayerIndex[] {
  if (encoded.length !== config.layers.length) throw misfit('it has another number of layers')
  let layerChunks = bounds.layerChunks
  let sizeBytes = 0
  const layers = encoded.map((bytes, at) => {
    const { layer, index } = describeLayer(bytes, { ...bounds, layerChunks })
    for (const field of ['digest', 'dataBytes', 'chunkCount', 'extentCount'] as const) {
      if (layer[field] !== config.layers[at]?.[field]) throw misfit(`layer ${at} is another`)
    }
    // A disk may grow from layer to layer; one that shrinks would hide data without saying so.
    if (index.virtualSizeBytes < sizeBytes) throw misfit(`layer ${at} is smaller than the last`)
    // What holds for one layer holds for all together: they lie in memory together.
    layerChunks -= layer.extentCount + index.zeros.length
    sizeBytes = index.virtualSizeBytes
    return index
  })
  if (sizeBytes !== config.virtualSizeBytes) throw misfit('its size is not that of its last layer')
  if ((layers[0]?.zeros.length ?? 0) > 0) throw misfit('its first layer says what became zero')
  return layers
}

/**
 * The same for an image's folder.
 * @throws as fitLayers, and the system's error
 */
export async function readFittedLayers(
  folder: string,
  config: ImageConfig,
  bounds: LayerIndexBounds,
): Promise<{ layers: LayerIndex[]; encoded: Buffer[] }> {
  const encoded = await Promise.all(
    config.layers.map((_, at) => readFile(join(folder, layerFile(at)))),
  )
  return { layers: fitLayers(config, encoded, bounds), encoded }
}

function misfit(detail: string): MacfleetError {
  return failure('imageConfigInvalid', { detail: `its layers do not fit: ${detail}` })
}
