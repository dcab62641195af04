import { chmod, open, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Value } from 'typebox/value'
import { syncFolder, writeFileAtomic } from '../base/files.ts'
import { decodeConfig } from './decode-config.ts'
import { encodeConfig, imageDigest } from './encode-config.ts'
import { imageFiles, layerFile, locationsFile } from './image-files.ts'
import {
  type ImageConfig,
  type ImageRecord,
  type ImageState,
  imageStateSchema,
} from './image-record.ts'

/**
 * The folder of one image. It is complete before it gets its name (the hash), so a folder with
 * such a name is an image, and everything else about it can be made from it again.
 */
export interface ImageFolder {
  path: string
  config: ImageConfig
  state: ImageState
  /** Bytes that its files take, as du counts them. */
  allocatedBytes: number
}

/** Everyone may pass through: a guest's own uid opens the disk in it. Nobody else may list it. */
export const folderMode = 0o711
/** Images never change once they are here. */
export const contentMode = 0o444
/** What only we read. */
export const privateMode = 0o600

/** The name of an image's folder. */
export function folderName(digest: string): string {
  return digest.slice('sha256:'.length)
}

/** Makes a folder that holds the disk (and kernel) into that of an image, durably. */
export async function sealImageFolder(
  path: string,
  image: {
    config: ImageConfig
    state: ImageState
    layers: readonly Uint8Array[]
    locations?: readonly (Uint8Array | undefined)[]
  },
): Promise<ImageFolder> {
  // Nobody sees the folder before it is renamed: each file durable once is enough.
  const options = { mode: privateMode, flush: true }
  for (const [at, layer] of image.layers.entries()) {
    await writeFile(join(path, layerFile(at)), layer, options)
  }
  for (const [at, locations] of (image.locations ?? []).entries()) {
    if (locations) await writeFile(join(path, locationsFile(at)), locations, options)
  }
  await writeFile(join(path, imageFiles.config), encodeConfig(image.config), options)
  await writeFile(join(path, imageFiles.state), JSON.stringify(image.state), options)
  await chmod(path, folderMode)
  await syncFolder(path)
  const { config, state } = image
  return { config, state, path, allocatedBytes: await allocatedBytes(path) }
}

/** Makes the disk in a folder one that never changes, durably. */
export async function sealDisk(path: string): Promise<void> {
  const disk = await open(join(path, imageFiles.disk), 'r')
  try {
    await disk.chmod(contentMode)
    await disk.sync()
  } finally {
    await disk.close()
  }
}

/** Writes what changes about an image; whole, so that a crash leaves the old or the new. */
export async function writeState(path: string, state: ImageState): Promise<void> {
  await writeFileAtomic(join(path, imageFiles.state), JSON.stringify(state), privateMode)
}

/**
 * Reads an image's folder and checks that it is what its name says.
 * @throws an error that says what is wrong with it
 */
export async function readImageFolder(path: string, digest: string): Promise<ImageFolder> {
  const config = decodeConfig(await readFile(join(path, imageFiles.config)))
  if (imageDigest(config) !== digest) throw new Error('its config is not the one it is named after')
  const disk = await stat(join(path, imageFiles.disk))
  if (disk.size !== config.virtualSizeBytes) throw new Error('its disk has the wrong size')
  const state = await readObject(join(path, imageFiles.state))
  if (!Value.Check(imageStateSchema, state)) throw new Error('its state is damaged')
  return { path, config, state, allocatedBytes: await allocatedBytes(path) }
}

/** The indexes of an image's layers, base first, as they lie in its folder. */
export async function readLayers(image: Pick<ImageFolder, 'path' | 'config'>): Promise<Buffer[]> {
  return await Promise.all(
    image.config.layers.map((_, at) => readFile(join(image.path, layerFile(at)))),
  )
}

/** What the store says of an image. */
export function recordOf(digest: string, image: ImageFolder): ImageRecord {
  const { layers, virtualSizeBytes, arch, machine, firmware, boot } = image.config
  const sum = (of: 'dataBytes' | 'chunkCount') => layers.reduce((all, layer) => all + layer[of], 0)
  const { format, importedAt, lastUsedAt, pinned } = image.state
  return {
    digest,
    layerDigests: layers.map(layer => layer.digest),
    virtualSizeBytes,
    dataBytes: sum('dataBytes'),
    allocatedBytes: image.allocatedBytes,
    chunkCount: sum('chunkCount'),
    format,
    arch,
    machine,
    firmware,
    ...(boot ? { boot } : {}),
    importedAt,
    lastUsedAt,
    pinned,
  }
}

async function readObject(path: string): Promise<unknown> {
  return JSON.parse(await readFile(path, 'utf8'))
}

/** Bytes that the files in a folder take, as du counts them. */
export async function allocatedBytes(path: string): Promise<number> {
  const names = await readdir(path)
  const stats = await Promise.all(names.map(name => stat(join(path, name))))
  return stats.reduce((sum, { blocks }) => sum + blocks * 512, 0)
}

/** Bytes that removing a folder frees: not those of a file that has another name elsewhere. */
export async function removableBytes(path: string): Promise<number> {
  const paths = (await readdir(path)).map(name => join(path, name))
  const stats = await Promise.all([path, ...paths].map(each => stat(each)))
  const own = stats.filter(each => each.isDirectory() || each.nlink === 1)
  return own.reduce((sum, { blocks }) => sum + blocks * 512, 0)
}
