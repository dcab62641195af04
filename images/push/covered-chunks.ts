import { writeSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { failure } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import { checkChunk } from '../format/packs.ts'
import type { Extent, LayerIndex } from '../layer-index.ts'
import type { ImageSource } from '../sources/source.ts'
import type { PackedChunk } from './pack-messages.ts'

/** A chunk of which this image's own disk does not show all, because later layers cover it. */
export interface CoveredChunk {
  digest: string
  layerDigest: string
  number: number
}

/** Where covered chunks are looked for. */
export interface CoveredChunksComponents {
  /** The raw disk of an image here that shows all of the chunk, and where on it. */
  findChunk(digest: string): Promise<{ path: string; extents: readonly Extent[] } | undefined>
  sources: readonly ImageSource[]
  log: Log
}

/**
 * Finds covered chunks in other images here; those that none has are fetched into a file.
 * @param path of that file
 * @throws layerIncomplete when some are nowhere to be had
 */
export async function findCovered(
  covered: readonly CoveredChunk[],
  indexes: ReadonlyMap<string, LayerIndex>,
  path: string,
  components: CoveredChunksComponents,
  signal: AbortSignal,
): Promise<Map<string, PackedChunk>> {
  const found = new Map<string, PackedChunk>()
  for (const { digest } of covered) {
    const place = await components.findChunk(digest)
    if (place !== undefined) found.set(digest, { digest, file: place.path, extents: place.extents })
  }
  for (const [layerDigest, index] of indexes) {
    const missing = covered.filter(
      chunk => chunk.layerDigest === layerDigest && !found.has(chunk.digest),
    )
    if (missing.length === 0) continue
    await fetchInto(path, { layerDigest, index, missing, found }, components, signal)
    const left = missing.filter(({ digest }) => !found.has(digest))
    if (left.length > 0) {
      throw failure('layerIncomplete', { count: left.length, layer: layerDigest })
    }
  }
  return found
}

interface Wish {
  layerDigest: string
  index: LayerIndex
  missing: readonly CoveredChunk[]
  found: Map<string, PackedChunk>
}

async function fetchInto(
  path: string,
  { layerDigest, index, missing, found }: Wish,
  { sources, log }: CoveredChunksComponents,
  signal: AbortSignal,
): Promise<void> {
  const file = await open(path, 'a', 0o600)
  try {
    let endBytes = (await file.stat()).size
    for (const source of sources) {
      const wanted = missing.filter(({ digest }) => !found.has(digest)).map(({ number }) => number)
      if (wanted.length === 0) return
      try {
        const layer = await source.openLayer(layerDigest, index, signal)
        for await (const { number, bytes } of layer.fetch(wanted, signal)) {
          const digest = index.chunks[number]?.digest
          if (digest === undefined) continue
          checkChunk(bytes, digest)
          for (let at = 0; at < bytes.length; ) at += writeSync(file.fd, bytes, at)
          const extents = [{ offsetBytes: endBytes, lengthBytes: bytes.length }]
          found.set(digest, { digest, file: path, extents })
          endBytes += bytes.length
        }
      } catch (error) {
        signal.throwIfAborted()
        log.warn({ source: source.name, layer: layerDigest, err: error }, 'a source failed a push')
      }
    }
  } finally {
    await file.close()
  }
}
