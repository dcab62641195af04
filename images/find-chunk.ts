import { join } from 'node:path'
import { composeLayers } from './composition.ts'
import { imageFiles } from './image-folder.ts'
import type { LayerChunk } from './layer-index.ts'
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

/** One place of a chunk. */
export async function findChunk(
  { chunks, shelf, filling }: StoreContext,
  digest: string,
): Promise<ChunkPlace | undefined> {
  const place = await chunks.find(
    digest,
    image => shelf.images.has(image) || filling.images.has(image),
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
