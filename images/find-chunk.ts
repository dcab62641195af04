import { open, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { composeLayers } from './composition.ts'
import { imageFiles } from './image-files.ts'
import type { ImageFolder } from './image-folder.ts'
import { extentBytes, type LayerChunk } from './layer-index.ts'
import { readPartialFolder } from './partial/partial-folder.ts'
import type { StoreContext } from './store-context.ts'

/** Where a chunk's bytes are: in that file, at these places, one after another. */
export interface ChunkPlace {
  image: string
  /** The raw disk that it lies in. */
  path: string
  /** Whether that image is on its way; else its disk is never written again. */
  partial: boolean
  extents: LayerChunk['extents']
}

/** One place of a chunk, in an image that is accepted. */
export async function findChunk(
  { chunks, shelf, filling }: StoreContext,
  digest: string,
  accepts: (image: string) => boolean = () => true,
): Promise<ChunkPlace | undefined> {
  const place = await chunks.find(
    digest,
    image => accepts(image) && (shelf.images.has(image) || filling.images.has(image)),
  )
  const whole = place && shelf.images.get(place.image)
  const folder = place && (whole ?? filling.images.get(place.image))
  if (place === undefined || folder === undefined) return undefined
  return { ...place, path: join(folder.path, imageFiles.disk), partial: whole === undefined }
}

/** Lets others find chunks of an image that is on its way. */
export async function noteChunks(
  context: StoreContext,
  digest: string,
  layer: number,
  numbers: readonly number[],
): Promise<void> {
  const image = context.filling.images.get(digest)
  if (image === undefined || numbers.length === 0) return
  if (image.views === undefined) {
    const { layers } = await readPartialFolder(image.path, digest, context.init.limits)
    image.views = composeLayers(layers)
  }
  const view = image.views[layer]
  const chunks = numbers.flatMap(number => {
    const chunk = view?.index.chunks[number]
    return chunk === undefined || view?.covered.has(number) ? [] : [chunk]
  })
  await context.turns.take(async () => {
    const isPartial = context.filling.images.has(digest) && !context.shelf.images.has(digest)
    if (isPartial) await context.chunks.note(digest, chunks)
  })
}

/** The same for all that can be handed on, a bit for each chunk, by layer. */
export async function noteServable(
  context: StoreContext,
  digest: string,
  servable: readonly Uint8Array[],
): Promise<void> {
  for (const [layer, bits] of servable.entries()) {
    const numbers: number[] = []
    for (const [at, byte] of bits.entries()) {
      for (let bit = 0; bit < 8; bit++) if (byte & (1 << bit)) numbers.push(at * 8 + bit)
    }
    await noteChunks(context, digest, layer, numbers)
  }
}

/**
 * A chunk's bytes out of an image here whose disk is another file, not yet compared with its
 * digest; undefined when there is none, or it can't be read.
 */
export async function readElsewhere(
  context: StoreContext,
  digest: string,
  image: ImageFolder,
): Promise<Buffer | undefined> {
  const own = await stat(join(image.path, imageFiles.disk))
  const places = new Set<string>()
  for (const folder of [...context.shelf.images, ...context.filling.images]) {
    const { ino } = await stat(join(folder[1].path, imageFiles.disk)).catch(() => own)
    if (ino !== own.ino) places.add(folder[0])
  }
  const place = await findChunk(context, digest, each => places.has(each))
  if (place === undefined) return undefined
  try {
    const disk = await open(place.path, 'r')
    try {
      const bytes = Buffer.allocUnsafe(extentBytes(place.extents))
      let at = 0
      for (const { offsetBytes, lengthBytes } of place.extents) {
        await disk.read(bytes, at, lengthBytes, offsetBytes)
        at += lengthBytes
      }
      return bytes
    } finally {
      await disk.close()
    }
  } catch {
    return undefined
  }
}
