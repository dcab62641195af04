import { failure, isFailure } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import { decodeLocations, type LayerLocations } from '../format/locations.ts'
import { decodeFrame } from '../format/packs.ts'
import { extentBytes, type LayerIndex } from '../layer-index.ts'
import { type PackRange, planRanges } from '../registry/range-plan.ts'
import type { FetchedChunk, ImageSource, LibraryDescription } from '../sources/source.ts'
import { createFolderReader, type FolderReader, type LibraryComponents } from './folder-reader.ts'
import { blobPath, readFileWhole } from './read-file.ts'

/** What a library needs to be a source. */
export interface LibrarySourceComponents extends LibraryComponents {
  log: Log
}

/**
 * An OCI layout in a library as a source of chunks. Neighbours in a pack are read at once; it
 * decodes on the thread that it runs on. It compares nothing with digests: whoever fetches does.
 */
export function createLibrarySource(
  description: LibraryDescription,
  components: LibrarySourceComponents,
): ImageSource {
  const { name, folder, layout, locations } = description
  const reader = createFolderReader(folder, components)
  return {
    name,
    kind: 'library',
    async *readBlob(digest, limitBytes, signal) {
      const path = blobPath(layout, digest)
      let bytes = 0
      for await (const piece of readFileWhole({ reader, name, path }, signal)) {
        bytes += piece.length
        if (bytes > limitBytes) {
          const detail = `blob ${digest} has more than ${limitBytes} bytes`
          throw failure('sourceFailed', { source: name, detail })
        }
        yield piece
      }
    },
    async openLayer(digest, index) {
      const encoded = locations[digest]
      if (encoded === undefined) throw failure('notFound', { resource: 'layer', name: digest })
      const found = decodeLocations(encoded, index.chunks.length, components.limits)
      const layer = { reader, layout, index, locations: found, components }
      return {
        held: async () => undefined,
        fetch: (chunks, signal) => fetchChunks(layer, chunks, signal),
      }
    },
    async close() {
      reader.close()
    },
  }
}

/** What fetching chunks of one layer needs. */
interface Layer {
  reader: FolderReader
  layout: string[]
  index: LayerIndex
  locations: LayerLocations
  components: LibrarySourceComponents
}

async function* fetchChunks(
  layer: Layer,
  chunks: readonly number[],
  signal: AbortSignal,
): AsyncGenerator<FetchedChunk> {
  const { limits, log } = layer.components
  const bounds = { rangeBytes: limits.registryRangeBytes, gapBytes: limits.registryGapBytes }
  for (const range of planRanges(chunks, layer.locations, bounds)) {
    try {
      const path = blobPath(layer.layout, range.pack)
      const bytes = await layer.reader.read(path, range.offsetBytes, range.lengthBytes, signal)
      yield* decodeRange(layer, range, bytes)
    } catch (error) {
      // A pack that is not there takes its chunks with it; those of others may still come.
      if (!isFailure(error, 'notFound')) throw error
      log.warn({ pack: range.pack }, 'A library lacks a pack')
    }
  }
}

function* decodeRange(
  { index, components }: Layer,
  { pack, offsetBytes, chunks }: PackRange,
  bytes: Buffer,
): Generator<FetchedChunk> {
  const damaged: number[] = []
  for (const { number, location } of chunks) {
    const start = location.offsetBytes - offsetBytes
    const plainBytes = extentBytes(index.chunks[number]?.extents ?? [])
    try {
      const frame = bytes.subarray(start, start + location.lengthBytes)
      yield { number, bytes: decodeFrame(frame, plainBytes) }
    } catch (error) {
      if (!isFailure(error, 'chunkInvalid')) throw error
      damaged.push(number)
    }
  }
  if (damaged.length === 0) return
  components.log.warn({ pack, numbers: damaged.slice(0, 8) }, 'A library has damaged chunks')
}
