import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { makeFolder, syncFolder } from '../../base/files.ts'
import { type Log, messageOf } from '../../base/log.ts'
import type { LayerView } from '../composition.ts'
import { imageFiles } from '../image-files.ts'
import {
  folderMode,
  folderName,
  type ImageFolder,
  readImageFolder,
  readLayers,
} from '../image-folder.ts'
import type { ImageConfig } from '../image-record.ts'
import { digestOf } from '../layer-index.ts'

/** A part of an image besides its disk. */
export type BlobKind = 'kernel' | 'initrd' | 'nvram'

/** The folder of an image that is on its way. */
export interface FillingFolder extends ImageFolder {
  /** Plain bytes that other images here had, when it was begun; 0 when that was in another life. */
  localBytes: number
  /** Parts that are here, verified. */
  blobs: Set<BlobKind>
  /** Kept once they were asked for. */
  views?: LayerView[]
}

/** The folders of images that are on their way. */
export interface FillingShelf {
  /** By digest. */
  images: ReadonlyMap<string, FillingFolder>
  /** Moves a folder that was made elsewhere to its place, durably. */
  put(digest: string, built: FillingFolder): Promise<FillingFolder>
  /** Moves it away, or forgets what was moved away. */
  take(digest: string, to?: string): Promise<void>
}

/** The parts that an image has besides its disk, with their digests. */
export function blobsOf({ boot, nvramDigest }: ImageConfig): Map<BlobKind, string> {
  const blobs = new Map<BlobKind, string>()
  if (boot !== undefined) blobs.set('kernel', boot.kernelDigest)
  if (boot?.initrdDigest !== undefined) blobs.set('initrd', boot.initrdDigest)
  if (nvramDigest !== undefined) blobs.set('nvram', nvramDigest)
  return blobs
}

/** Takes up what lies in `folder`; what can't be taken up is removed, and comes anew. */
export async function loadFillingShelf(folder: string, log: Log): Promise<FillingShelf> {
  makeFolder(folder, folderMode)
  const images = new Map<string, FillingFolder>()
  for (const name of await readdir(folder)) {
    const path = join(folder, name)
    const digest = `sha256:${name}`
    try {
      images.set(digest, await loadFolder(path, digest))
    } catch (error) {
      log.warn({ image: digest, error: messageOf(error) }, 'what came of an image is damaged')
      await rm(path, { recursive: true, force: true })
    }
  }
  return {
    images,
    async put(digest, built) {
      const path = join(folder, folderName(digest))
      await rename(built.path, path)
      await syncFolder(folder)
      const placed = { ...built, path }
      images.set(digest, placed)
      return placed
    },
    async take(digest, to) {
      const image = images.get(digest)
      if (image !== undefined && to !== undefined) await rename(image.path, to)
      images.delete(digest)
    },
  }
}

async function loadFolder(path: string, digest: string): Promise<FillingFolder> {
  const image = await readImageFolder(path, digest)
  for (const [at, layer] of (await readLayers(image)).entries()) {
    const found = digestOf(createHash('sha256').update(layer).digest())
    if (found !== image.config.layers[at]?.digest) throw new Error('one of its layers is damaged')
  }
  const kinds = [...blobsOf(image.config).keys()]
  const blobs = new Set(kinds.filter(kind => existsSync(join(path, imageFiles[kind]))))
  return { ...image, localBytes: 0, blobs }
}
