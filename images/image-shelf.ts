import { link, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { assert } from '../base/errors.ts'
import { makeFolder, syncFolder } from '../base/files.ts'
import type { Limits } from '../base/limits.ts'
import { type Log, messageOf } from '../base/log.ts'
import { type Random, randomSuffix } from '../base/random.ts'
import type { ChunkIndex } from './chunk-index.ts'
import { composeLayers } from './composition.ts'
import { nameDiskFull } from './disk-space.ts'
import { imageDigest } from './encode-config.ts'
import { imageFiles } from './image-files.ts'
import {
  allocatedBytes,
  folderMode,
  folderName,
  type ImageFolder,
  readImageFolder,
  readLayers,
  removableBytes,
} from './image-folder.ts'
import { decodeLayerIndex, type LayerChunk } from './layer-index.ts'
import { presentFile } from './partial/open-partial-disk.ts'

/** What a shelf needs. */
export interface ImageShelfComponents {
  /** Images that are on their way: their chunks in the index are right too. */
  filling: { has(digest: string): boolean }
  chunks: ChunkIndex
  log: Log
  random: Random
  limits: Limits
}

/**
 * The images' folders and the index of their chunks, kept in step. An image comes into being, and
 * ceases to be, by one rename; whatever a crash leaves besides is put right when the shelf is
 * loaded.
 */
export interface ImageShelf {
  /** By digest. */
  images: ReadonlyMap<string, ImageFolder>
  /**
   * An empty folder in which an image can be built; what is left in it is gone after a crash.
   * @throws diskFull
   */
  makeIncoming(): string
  /**
   * Moves a sealed folder to its place. An image that is there already stays, and the folder goes;
   * one whose layer is there already gets another name for the same disk.
   */
  put(built: ImageFolder & { layers: Buffer[] }): Promise<string>
  /**
   * Takes an image away for good.
   * @returns the bytes that are free now: not those of a disk which another image shares
   */
  take(digest: string): Promise<number>
}

/** Reads what lies in `folder` and clears what is half done. */
export async function loadImageShelf(
  folder: string,
  components: ImageShelfComponents,
): Promise<ImageShelf> {
  const images = new Map<string, ImageFolder>()
  const incoming = join(folder, 'incoming')
  await rm(incoming, { recursive: true, force: true })
  makeFolder(incoming, folderMode)
  for (const name of await readdir(folder)) {
    if (!/^[0-9a-f]{64}$/.test(name)) continue
    const digest = `sha256:${name}`
    try {
      // A crash may have come between the end of its filling and the end of its journal.
      await rm(join(folder, name, presentFile), { force: true })
      images.set(digest, await readImageFolder(join(folder, name), digest))
    } catch (error) {
      const fields = { image: digest, error: messageOf(error) }
      components.log.error(fields, 'an image is damaged and not listed; delete its folder')
    }
  }
  await alignChunks(images, components)
  const { random } = components
  return {
    images,
    makeIncoming() {
      const path = join(incoming, randomSuffix(random, 12))
      try {
        makeFolder(path, folderMode)
      } catch (error) {
        throw nameDiskFull(error, folder)
      }
      return path
    },
    put: built => putImage(folder, images, components, built),
    take: digest => takeImage(incoming, images, components, digest),
  }
}

/** Makes the index say of the images what their folders say. */
async function alignChunks(
  images: ReadonlyMap<string, ImageFolder>,
  { chunks, filling, limits, log }: ImageShelfComponents,
): Promise<void> {
  const indexed = await chunks.images()
  for (const digest of indexed.keys()) {
    if (!images.has(digest) && !filling.has(digest)) await chunks.remove(digest, undefined)
  }
  for (const [digest, image] of images) {
    if (indexed.get(digest) === 'whole') continue
    log.info({ image: digest }, 'entering the chunks of an image into the index')
    await chunks.add(digest, servableChunks(await readLayers(image), limits))
  }
}

async function putImage(
  folder: string,
  images: Map<string, ImageFolder>,
  { chunks, limits }: ImageShelfComponents,
  built: ImageFolder & { layers: Buffer[] },
): Promise<string> {
  const { layers, ...image } = built
  const digest = imageDigest(image.config)
  if (images.has(digest)) return digest
  const same = [...images.values()].find(other => diskName(other) === diskName(image))
  if (same !== undefined) {
    await shareDisk(same, image)
    image.allocatedBytes = await allocatedBytes(image.path)
  }
  const path = join(folder, folderName(digest))
  await rename(image.path, path)
  try {
    await syncFolder(folder)
    await chunks.add(digest, servableChunks(layers, limits))
  } catch (error) {
    await rename(path, image.path)
    // If this fails too, what was entered is taken out when the shelf is loaded again.
    await chunks.remove(digest, undefined).catch(() => {})
    throw error
  }
  images.set(digest, { ...image, path })
  return digest
}

/** Images with the same layers have the same disk. */
function diskName({ config }: ImageFolder): string {
  return config.layers.map(({ digest }) => digest).join(' ')
}

/** Chunks whose bytes lie in the disk as they are: what a layer above covers can't be read there. */
function servableChunks(layers: readonly Buffer[], limits: Limits): LayerChunk[] {
  const views = composeLayers(layers.map(layer => decodeLayerIndex(layer, limits)))
  return views.flatMap(({ index, covered }) =>
    covered.size === 0 ? index.chunks : index.chunks.filter((_, number) => !covered.has(number)),
  )
}

/**
 * Lets an image use the disk of another with the same layer: the file is freed with its last name.
 */
async function shareDisk(from: ImageFolder, to: ImageFolder): Promise<void> {
  const own = join(to.path, imageFiles.disk)
  const shared = join(from.path, imageFiles.disk)
  if ((await stat(own)).ino === (await stat(shared)).ino) return
  await link(shared, `${own}.shared`)
  await rename(`${own}.shared`, own)
  await syncFolder(to.path)
}

async function takeImage(
  incoming: string,
  images: Map<string, ImageFolder>,
  { chunks, limits }: ImageShelfComponents,
  digest: string,
): Promise<number> {
  const image = images.get(digest)
  assert(image, `image ${digest} is here`)
  const held = servableChunks(await readLayers(image), limits)
  const path = join(incoming, folderName(digest))
  await rename(image.path, path)
  images.delete(digest)
  await chunks.remove(digest, held)
  const freedBytes = await removableBytes(path)
  await rm(path, { recursive: true, force: true })
  return freedBytes
}
