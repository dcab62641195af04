import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { type FileHandle, open, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Limits } from '../base/limits.ts'
import { type ConvertComponents, mapData } from './convert.ts'
import { type ImageFolder, imageFiles, layerFile, readLayers } from './image-folder.ts'
import {
  chunkBytes,
  decodeLayerIndex,
  digestOf,
  type LayerChunk,
  type LayerIndex,
} from './layer-index.ts'
import { type ScanOptions, scanFile } from './scanner.ts'

/** Something on the disk that is not what the image's digest says. */
export interface BadPart {
  file: 'disk' | 'kernel' | 'initrd' | 'layer'
  /** What should be there; for bytes where a hole should be, what is there. */
  digest: string
  /** Where in the file. */
  offset: number
}

/** What a verification found. */
export interface Verification {
  checkedChunks: number
  bad: BadPart[]
}

/**
 * Reads an image anew, in a thread of its own, and holds every byte against its digest: chunks,
 * holes (which must be zero), the layer's index, kernel and initrd.
 * @throws the signal's reason, or the system's error when something can't be read
 */
export async function verifyImage(
  components: ConvertComponents & { limits: Limits },
  image: ImageFolder,
  options: ScanOptions,
): Promise<Verification> {
  const { layers, boot } = image.config
  const bad: BadPart[] = []
  const check = async (file: 'layer' | 'kernel' | 'initrd', digest: string | undefined, at = 0) => {
    if (digest === undefined) return
    const name = file === 'layer' ? layerFile(at) : imageFiles[file]
    const found = await hashFile(join(image.path, name), options.signal)
    if (found !== digest) bad.push({ file, digest, offset: 0 })
  }
  for (const [at, { digest }] of layers.entries()) await check('layer', digest, at)
  await check('kernel', boot?.kernelDigest)
  await check('initrd', boot?.initrdDigest)
  if (bad.some(({ file }) => file === 'layer')) return { checkedChunks: 0, bad }
  const [base = Buffer.alloc(0)] = await readLayers(image)
  const stated = decodeLayerIndex(base, components.limits)
  const found = await rescan(components, image, options)
  bad.push(...compareLayers(stated, found))
  return { checkedChunks: stated.chunks.length, bad }
}

async function rescan(
  components: ConvertComponents & { limits: Limits },
  image: ImageFolder,
  options: ScanOptions,
): Promise<LayerIndex> {
  const path = join(image.path, imageFiles.disk)
  const { size: sizeBytes } = await stat(path)
  const file = { workingFolder: image.path, name: imageFiles.disk }
  const mapped = await mapData(components, file, options.signal)
  const ranges = mapped ?? [{ offsetBytes: 0, lengthBytes: sizeBytes }]
  let disk: FileHandle | undefined
  try {
    disk = await open(path, 'r')
    const task = { diskFile: disk.fd, sourceFile: disk.fd, sizeBytes, ranges, readOnly: true }
    const { index } = await scanFile(task, options)
    return decodeLayerIndex(index, components.limits)
  } finally {
    await disk?.close()
  }
}

/** The windows of the disk in which the two differ; what was stated is named where there is any. */
function compareLayers(stated: LayerIndex, found: LayerIndex): BadPart[] {
  const differing = byWindow(stated)
  for (const [window, chunk] of byWindow(found)) {
    const same = JSON.stringify(differing.get(window)) === JSON.stringify(chunk)
    if (same) differing.delete(window)
    else if (!differing.has(window)) differing.set(window, chunk)
  }
  return [...differing.values()].map(chunk => ({
    file: 'disk' as const,
    digest: chunk.digest,
    offset: startOf(chunk),
  }))
}

/** Chunks by the window of disk that the import packed into each. */
function byWindow({ chunks }: LayerIndex): Map<number, LayerChunk> {
  return new Map(chunks.map(chunk => [Math.floor(startOf(chunk) / chunkBytes), chunk]))
}

function startOf({ extents }: LayerChunk): number {
  return extents[0]?.offsetBytes ?? 0
}

async function hashFile(path: string, signal: AbortSignal | undefined): Promise<string> {
  const hash = createHash('sha256')
  for await (const part of createReadStream(path, { signal })) hash.update(part)
  return digestOf(hash.digest())
}
