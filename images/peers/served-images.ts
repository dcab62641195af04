import { hash } from 'node:crypto'
import { type FileHandle, open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isErrno } from '../../base/files.ts'
import type { Limits } from '../../base/limits.ts'
import { composeLayers, type LayerView } from '../composition.ts'
import { imageFiles, layerFile } from '../image-files.ts'
import type { ImageConfig } from '../image-record.ts'
import { decodeLayerIndex, extentBytes, type LayerChunk } from '../layer-index.ts'
import { emptyBits, hasBit, putBit } from '../transfer/bitmap.ts'

/** An image that others may have, as it is here. */
export interface ServedImage {
  /** The image's digest. */
  digest: string
  folder: string
  config: ImageConfig
  /** By layer, which of its chunks are durable here, a bit for each; undefined: all. */
  stored?: Uint8Array[]
}

/** Something of an image that is not what it was when it was verified. */
export interface Rot {
  /** The image's digest. */
  image: string
  /** `chunk`: the layer's place, base 0, and the chunk's number; `blob`: the digest of a file. */
  part: { layer: number; chunk: number } | { blob: string }
  detail: string
}

/** What images need to be served. */
export interface ServedImagesComponents {
  limits: Pick<Limits, 'diskBytes' | 'layerChunks' | 'transferChunksKnown'>
  onRot(rot: Rot): void
}

/** A file that is had whole by its digest. */
export interface ServedBlob {
  handle: FileHandle
  lengthBytes: number
  /** What was read is not what its digest says. */
  isRotten(detail: string): void
}

/** The images of this host as others may have them; also those that are here only in part. */
export interface ServedImages {
  /** From now on; also when it has become whole, has moved or was mended. */
  set(image: ServedImage): void
  /** More of its chunks are durable. */
  add(image: string, layer: number, chunks: readonly number[]): void
  /** Resolves when none of its files is open here. */
  remove(image: string): Promise<void>
  /** Which chunks of a layer are here; `all`; undefined when nothing is known of the layer. */
  held(layer: string): Promise<Uint8Array | 'all' | undefined>
  /** Whether there is anything of a layer. */
  hasLayer(layer: string): boolean
  /**
   * A chunk's plain bytes, read and compared with its digest now; undefined: not here.
   * @param memory where they are put, of the size of the largest chunk
   */
  readChunk(layer: string, chunk: number, memory: Buffer): Promise<Buffer | undefined>
  /** Opens a blob; undefined: not here. The caller closes it. */
  openBlob(digest: string): Promise<ServedBlob | undefined>
  close(): Promise<void>
}

interface OpenImage {
  disk: FileHandle
  layers: readonly LayerView[]
  chunkCount: number
}

interface Entry {
  image: ServedImage
  /** Chunks that were found rotten, `LAYER/CHUNK`. */
  rotten: Set<string>
  opened?: Promise<OpenImage | undefined>
}

/** No images yet. */
export function createServedImages(components: ServedImagesComponents): ServedImages {
  /** In the order of their last use. */
  const entries = new Map<string, Entry>()
  const layers = new Map<string, Set<Entry>>()
  const blobs = new Map<string, Set<Entry>>()
  const use = async (entry: Entry): Promise<OpenImage | undefined> => {
    const { digest } = entry.image
    // Removed while somebody was on the way here: nothing is opened that nobody would close.
    if (entries.get(digest) !== entry) return undefined
    entries.delete(digest)
    entries.set(digest, entry)
    entry.opened ??= openImage(entry, components)
    const opened = await entry.opened
    await forgetOldest(entries, entry, components.limits.transferChunksKnown)
    return opened
  }
  const drop = async (digest: string): Promise<void> => {
    const entry = entries.get(digest)
    if (entry === undefined) return
    entries.delete(digest)
    for (const [index, names] of [
      [layers, layersOf(entry.image)],
      [blobs, blobsOf(entry.image).keys()],
    ] as const) {
      for (const name of names) {
        index.get(name)?.delete(entry)
        if (index.get(name)?.size === 0) index.delete(name)
      }
    }
    await closeEntry(entry)
  }
  const readFrom = async (entry: Entry, layer: string, chunk: number, memory: Buffer) => {
    const at = layersOf(entry.image).indexOf(layer)
    // Twice, because others may have had it closed meanwhile (`forgetOldest`).
    for (let attempt = 0; attempt < 2 && entries.get(entry.image.digest) === entry; attempt++) {
      const opened = await use(entry)
      if (opened === undefined || !isServable(entry, opened, at, chunk)) return undefined
      const part = { layer: at, chunk, memory }
      const bytes = await readVerified(entry, opened, part, components)
      if (bytes !== undefined) return bytes
    }
    return undefined
  }
  return {
    set(image) {
      // Who reads goes on reading from the files that it has opened: they are the same ones.
      void drop(image.digest)
      const entry: Entry = { image, rotten: new Set() }
      entries.set(image.digest, entry)
      for (const layer of layersOf(image)) addTo(layers, layer, entry)
      for (const blob of blobsOf(image).keys()) addTo(blobs, blob, entry)
    },
    add(image, layer, chunks) {
      const stored = entries.get(image)?.image.stored?.[layer]
      if (stored !== undefined) for (const chunk of chunks) putBit(stored, chunk, true)
    },
    remove: drop,
    hasLayer: layer => layers.has(layer),
    async held(layer) {
      const found = layers.get(layer)
      if (found === undefined) return undefined
      let bits: Uint8Array | undefined
      for (const entry of [...found]) {
        const opened = await use(entry)
        if (opened === undefined) continue
        bits = markServable(bits, entry, opened, layer)
        if (bits === undefined) return 'all'
      }
      return bits
    },
    async readChunk(layer, chunk, memory) {
      for (const entry of [...(layers.get(layer) ?? [])]) {
        const bytes = await readFrom(entry, layer, chunk, memory)
        if (bytes !== undefined) return bytes
      }
      return undefined
    },
    async openBlob(digest) {
      for (const entry of blobs.get(digest) ?? []) {
        const name = blobsOf(entry.image).get(digest)
        const found = await openFile(join(entry.image.folder, name ?? ''))
        if (found === undefined) continue
        const image = entry.image.digest
        const isRotten = (detail: string) =>
          components.onRot({ image, part: { blob: digest }, detail })
        return { ...found, isRotten }
      }
      return undefined
    },
    async close() {
      for (const digest of [...entries.keys()]) await drop(digest)
    },
  }
}

function addTo(index: Map<string, Set<Entry>>, name: string, entry: Entry): void {
  const found = index.get(name)
  if (found === undefined) index.set(name, new Set([entry]))
  else found.add(entry)
}

function layersOf({ config }: ServedImage): string[] {
  return config.layers.map(({ digest }) => digest)
}

/** The files of an image that are had whole, by digest. */
function blobsOf({ digest, config }: ServedImage): Map<string, string> {
  const blobs = new Map<string, string>([[digest, imageFiles.config]])
  for (const [at, layer] of config.layers.entries()) blobs.set(layer.digest, layerFile(at))
  const { boot, nvramDigest } = config
  if (boot !== undefined) blobs.set(boot.kernelDigest, imageFiles.kernel)
  if (boot?.initrdDigest !== undefined) blobs.set(boot.initrdDigest, imageFiles.initrd)
  if (nvramDigest !== undefined) blobs.set(nvramDigest, imageFiles.nvram)
  return blobs
}

/** @returns undefined when the image has gone meanwhile, or is not what it should be */
async function openImage(
  { image }: Entry,
  { limits, onRot }: ServedImagesComponents,
): Promise<OpenImage | undefined> {
  let disk: FileHandle | undefined
  let blob = ''
  try {
    const indexes = []
    for (const [at, digest] of layersOf(image).entries()) {
      blob = digest
      const encoded = await readFile(join(image.folder, layerFile(at)))
      if (`sha256:${hash('sha256', encoded)}` !== digest) throw new Error('its digest is another')
      indexes.push(decodeLayerIndex(encoded, limits))
    }
    disk = await open(join(image.folder, imageFiles.disk), 'r')
    const layers = composeLayers(indexes)
    const chunkCount = indexes.reduce((sum, { chunks }) => sum + chunks.length, 0)
    return { disk, layers, chunkCount }
  } catch (error) {
    await disk?.close()
    const detail = error instanceof Error ? error.message : String(error)
    if (!isErrno(error, 'ENOENT')) onRot({ image: image.digest, part: { blob }, detail })
    return undefined
  }
}

async function openFile(
  path: string,
): Promise<{ handle: FileHandle; lengthBytes: number } | undefined> {
  let handle: FileHandle
  try {
    handle = await open(path, 'r')
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
  try {
    return { handle, lengthBytes: (await handle.stat()).size }
  } catch (error) {
    await handle.close()
    throw error
  }
}

/** Closes what was used longest ago, so that what is known of chunks has a bound. */
async function forgetOldest(
  entries: ReadonlyMap<string, Entry>,
  newest: Entry,
  mostChunks: number,
): Promise<void> {
  const opened = [...entries.values()].filter(entry => entry.opened !== undefined)
  const counts = await Promise.all(opened.map(async each => (await each.opened)?.chunkCount ?? 0))
  let sum = counts.reduce((all, count) => all + count, 0)
  for (const [at, entry] of opened.entries()) {
    if (sum <= mostChunks) return
    if (entry === newest) continue
    sum -= counts[at] ?? 0
    await closeEntry(entry)
  }
}

async function closeEntry(entry: Entry): Promise<void> {
  const { opened } = entry
  delete entry.opened
  // Closing waits for reads that are under way.
  await (await opened)?.disk.close()
}

/** Whether the whole chunk lies in the disk: durable, hidden by no layer above, not rotten. */
function isServable(entry: Entry, { layers }: OpenImage, at: number, chunk: number): boolean {
  const view = layers[at]
  if (view === undefined || chunk >= view.index.chunks.length || view.covered.has(chunk)) {
    return false
  }
  const stored = entry.image.stored
  if (stored !== undefined && !hasBit(stored[at] ?? emptyBits(0), chunk)) return false
  return !entry.rotten.has(`${at}/${chunk}`)
}

/** Adds what an image has of a layer; undefined: there is nothing that it lacks. */
function markServable(
  bits: Uint8Array | undefined,
  entry: Entry,
  opened: OpenImage,
  layer: string,
): Uint8Array | undefined {
  const at = layersOf(entry.image).indexOf(layer)
  const count = opened.layers[at]?.index.chunks.length ?? 0
  const marked = bits ?? emptyBits(count)
  let lacking = false
  for (let chunk = 0; chunk < count; chunk++) {
    if (hasBit(marked, chunk)) continue
    if (isServable(entry, opened, at, chunk)) putBit(marked, chunk, true)
    else lacking = true
  }
  return lacking ? marked : undefined
}

async function readVerified(
  entry: Entry,
  { disk, layers }: OpenImage,
  { memory, ...part }: { layer: number; chunk: number; memory: Buffer },
  { onRot }: ServedImagesComponents,
): Promise<Buffer | undefined> {
  const chunk = layers[part.layer]?.index.chunks[part.chunk]
  if (chunk === undefined) return undefined
  let detail = 'its bytes are not those that its digest names'
  try {
    const bytes = await readExtents(disk, chunk, memory)
    if (`sha256:${hash('sha256', bytes)}` === chunk.digest) return bytes
  } catch (error) {
    // Closed: the image is removed, or was not used for long.
    if (isErrno(error, 'EBADF')) return undefined
    detail = error instanceof Error ? error.message : String(error)
  }
  entry.rotten.add(`${part.layer}/${part.chunk}`)
  onRot({ image: entry.image.digest, part, detail })
  return undefined
}

async function readExtents(
  disk: FileHandle,
  { extents }: LayerChunk,
  memory: Buffer,
): Promise<Buffer> {
  const bytes = memory.subarray(0, extentBytes(extents))
  let at = 0
  for (const { offsetBytes, lengthBytes } of extents) {
    const end = at + lengthBytes
    for (let place = offsetBytes; at < end; ) {
      const { bytesRead } = await disk.read(bytes, at, end - at, place)
      if (bytesRead === 0) throw new Error('the disk ends before it')
      at += bytesRead
      place += bytesRead
    }
  }
  return bytes
}
