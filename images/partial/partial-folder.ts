import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { failure } from '../../base/errors.ts'
import { decodeConfig } from '../decode-config.ts'
import { imageDigest } from '../encode-config.ts'
import { readFittedLayers } from '../fit-layers.ts'
import { imageFiles } from '../image-files.ts'
import type { ImageConfig } from '../image-record.ts'
import type { LayerIndex, LayerIndexBounds } from '../layer-index.ts'
import { type FillablePartialDisk, openPartialDisk } from './open-partial-disk.ts'

/** What an image is said to be, in its folder. */
export interface PartialContent {
  config: ImageConfig
  /** Base first. */
  layers: LayerIndex[]
  /** The same as their digests name them. */
  encoded: Buffer[]
}

/**
 * Reads an image's config and layers from its folder, and checks them.
 * @throws imageConfigInvalid, layerIndexInvalid, the system's error
 */
export async function readPartialFolder(
  folder: string,
  digest: string,
  bounds: LayerIndexBounds,
): Promise<PartialContent> {
  const config = decodeConfig(await readFile(join(folder, imageFiles.config)))
  if (imageDigest(config) !== digest) {
    throw failure('imageConfigInvalid', { detail: `it is not that of ${digest}` })
  }
  return { config, ...(await readFittedLayers(folder, config, bounds)) }
}

/**
 * Opens the disk in a partial image's folder.
 * @throws as readPartialFolder and openPartialDisk
 */
export async function openPartialFolder(
  folder: string,
  digest: string,
  bounds: LayerIndexBounds,
): Promise<FillablePartialDisk> {
  return await openPartialDisk({ folder, ...(await readPartialFolder(folder, digest, bounds)) })
}
