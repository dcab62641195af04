import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { failure } from '../base/errors.ts'
import { makeParts } from './begin-image.ts'
import { describeLayer } from './describe-layer.ts'
import { nameDiskFull } from './disk-space.ts'
import { imageDigest } from './encode-config.ts'
import { allocatedBytes, type ImageFolder, readLayers, recordOf, sealDisk } from './image-folder.ts'
import type { ImageConfig, ImageRecord } from './image-record.ts'
import { chunkBytes } from './layer-index.ts'
import { blobsOf } from './partial/filling-shelf.ts'
import { presentFile } from './partial/open-partial-disk.ts'
import { openPartialFolder } from './partial/partial-folder.ts'
import { admitWork, findWhole, type StoreContext, whileCopied } from './store-context.ts'

/** An image that is another one and a layer upon it. */
export interface Derivation {
  /** Digest of an image that is here whole. */
  parent: string
  /** The layer's index as its digest names it (layer-index.ts). */
  encodedLayer: Uint8Array
  /** Plain bytes of a chunk of the layer, by its number; compared with its digest. */
  readChunk(number: number): Promise<Buffer>
  signal?: AbortSignal
}

/** Chunks between two syncs. */
const chunksPerFlush = (64 * 1024 * 1024) / chunkBytes

/** Makes an image of a parent and a layer. @throws as ImageStore.derive */
export async function deriveImage(
  context: StoreContext,
  derivation: Derivation,
): Promise<ImageRecord> {
  const { parent, encodedLayer } = derivation
  const image = findWhole(context, parent)
  const { virtualSizeBytes, layer } = describeLayer(encodedLayer, context.init.limits)
  const layers = [...image.config.layers, layer]
  const config: ImageConfig = { ...image.config, virtualSizeBytes, layers }
  const digest = imageDigest(config)
  const here = context.shelf.images.get(digest)
  if (here !== undefined) return recordOf(digest, here)
  return await whileCopied(context, parent, () =>
    admitWork(context, derivation.signal, async signal => {
      const built = await buildDerived(context, image, config, { ...derivation, signal })
      return recordOf(digest, built)
    }),
  )
}

async function buildDerived(
  context: StoreContext,
  parent: ImageFolder,
  config: ImageConfig,
  derivation: Derivation & { signal: AbortSignal },
): Promise<ImageFolder> {
  const { shelf, turns, init } = context
  const { signal } = derivation
  const incoming = shelf.makeIncoming()
  try {
    const layers = [...(await readLayers(parent)), Buffer.from(derivation.encodedLayer)]
    const { sealed } = await makeParts(context, incoming, { config, layers }, signal)
    const missing = [...blobsOf(config).keys()].find(kind => !sealed.blobs.has(kind))
    if (missing !== undefined) {
      throw failure('internal', { detail: `the ${missing} of the parent image is not to be had` })
    }
    await putLayer(context, incoming, config, derivation)
    await sealDisk(incoming)
    await rm(join(incoming, presentFile))
    signal.throwIfAborted()
    const { path, state } = sealed
    const takenBytes = await allocatedBytes(path)
    const digest = await turns.take(() =>
      shelf.put({ path, config, state, allocatedBytes: takenBytes, layers }),
    )
    context.components.log.info({ image: digest }, 'an image was made of another')
    return findWhole(context, digest)
  } catch (error) {
    signal.throwIfAborted()
    throw nameDiskFull(error, init.folder)
  } finally {
    await rm(incoming, { recursive: true, force: true })
  }
}

async function putLayer(
  context: StoreContext,
  folder: string,
  config: ImageConfig,
  { readChunk, signal }: Derivation & { signal: AbortSignal },
): Promise<void> {
  const disk = await openPartialFolder(folder, imageDigest(config), context.init.limits)
  try {
    let waiting = 0
    for (const { layer, chunk } of disk.allMissing()) {
      signal.throwIfAborted()
      if (layer !== config.layers.length - 1) {
        const detail = 'the parent image is damaged; `macfleet image verify` says where'
        throw failure('chunkInvalid', { detail })
      }
      await disk.put({ layer, chunk }, await readChunk(chunk))
      waiting++
      if (waiting < chunksPerFlush) continue
      await disk.flush()
      waiting = 0
    }
    await disk.flush()
  } finally {
    await disk.close()
  }
}
