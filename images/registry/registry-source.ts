import { createHash } from 'node:crypto'
import { failure, isFailure, messageOf } from '../../base/errors.ts'
import { decodeLocations, type LayerLocations } from '../format/locations.ts'
import { checkChunk, decodeFrame } from '../format/packs.ts'
import { digestOf, extentBytes, type LayerIndex } from '../layer-index.ts'
import type { FetchedChunk, ImageSource, RegistryDescription } from '../sources/source.ts'
import { createRegistryClient, type RegistryClient } from './client.ts'
import type { RegistryComponents } from './endpoint.ts'
import { interleave } from './interleave.ts'
import { type PackRange, type PlacedChunk, planRanges } from './range-plan.ts'

/** Tries of one range: whoever fetches has other sources, and asks again itself. */
const rangeTries = 3

/**
 * A repository of a registry as a source of chunks. Neighbours in a pack come by one request; it
 * decodes on the thread that it runs on. What a mirror sent is compared with its digest here
 * already: so it is known who was wrong, and the registry is asked instead.
 */
export function createRegistrySource(
  description: RegistryDescription,
  components: RegistryComponents,
): ImageSource {
  const { repository, name } = description
  const client = createRegistryClient(description.access, components)
  return {
    name,
    kind: 'registry',
    readBlob: (digest, limitBytes, signal) =>
      readBlob(client, repository, digest, limitBytes, signal),
    async openLayer(digest, index) {
      const encoded = description.locations[digest]
      if (encoded === undefined) throw failure('notFound', { resource: 'layer', name: digest })
      const locations = decodeLocations(encoded, index.chunks.length, components.limits)
      return {
        held: async () => undefined,
        fetch: (chunks, signal) =>
          fetchChunks({ client, repository, index, locations, components }, chunks, signal),
      }
    },
    close: () => client.close(),
  }
}

async function* readBlob(
  client: RegistryClient,
  repository: string,
  digest: string,
  limitBytes: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const servedBy = new Set<string>()
  const hash = createHash('sha256')
  let bytes = 0
  const wrong = (detail: string): Error => {
    client.distrust(servedBy)
    return failure('sourceFailed', { source: client.name, detail })
  }
  for await (const piece of client.streamBlob(repository, digest, { servedBy }, signal)) {
    bytes += piece.length
    if (bytes > limitBytes) throw wrong(`blob ${digest} has more than ${limitBytes} bytes`)
    hash.update(piece)
    yield piece
  }
  if (digestOf(hash.digest()) !== digest) throw wrong(`blob ${digest} has another digest`)
}

/** Frames are decoded out of these: buffers made for each range had the collector run all the time. */
const spareBytes = 2 * 1024 * 1024
const mostSpares = 4
const spares: Buffer[] = []

function takeBuffer(lengthBytes: number): Buffer {
  if (lengthBytes > spareBytes) return Buffer.allocUnsafeSlow(lengthBytes)
  return spares.pop() ?? Buffer.allocUnsafeSlow(spareBytes)
}

function giveBuffer(buffer: Buffer): void {
  if (buffer.length === spareBytes && spares.length < mostSpares) spares.push(buffer)
}

/** What fetching chunks of one layer needs. */
interface Layer {
  client: RegistryClient
  repository: string
  index: LayerIndex
  locations: LayerLocations
  components: RegistryComponents
}

async function* fetchChunks(
  layer: Layer,
  chunks: readonly number[],
  signal: AbortSignal,
): AsyncGenerator<FetchedChunk> {
  const { registryRangeBytes, registryGapBytes, registryRangesAtOnce } = layer.components.limits
  const bounds = { rangeBytes: registryRangeBytes, gapBytes: registryGapBytes }
  const stop = new AbortController()
  const onAbort = (): void => stop.abort(signal.reason)
  signal.throwIfAborted()
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    const ranges = planRanges(chunks, layer.locations, bounds)
    const streams = ranges.map(range => () => fetchRange(layer, range, stop.signal))
    yield* interleave(streams, registryRangesAtOnce)
  } finally {
    signal.removeEventListener('abort', onAbort)
    stop.abort(new Error('nobody takes the chunks any more'))
  }
}

/** A range again while mirrors send rot: each time fewer of them are asked. */
async function* fetchRange(
  layer: Layer,
  range: PackRange,
  signal: AbortSignal,
): AsyncGenerator<FetchedChunk> {
  let wanted: PackRange | undefined = range
  while (wanted !== undefined) {
    const servedBy = new Set<string>()
    const rotten: PlacedChunk[] = []
    try {
      yield* readRange(layer, wanted, { servedBy, rotten }, signal)
    } catch (error) {
      // A pack that is not there takes its chunks with it; those of others may still come.
      if (!isFailure(error, 'notFound')) throw error
      layer.components.log.warn({ pack: range.pack }, 'A registry lacks a pack')
      return
    }
    if (rotten.length === 0) return
    if (servedBy.size === 0) {
      const numbers = rotten.map(({ number }) => number).slice(0, 8)
      layer.components.log.warn({ pack: range.pack, numbers }, 'A registry has damaged chunks')
      return
    }
    layer.client.distrust(servedBy)
    wanted = { ...wanted, chunks: rotten }
  }
}

async function* readRange(
  { client, repository, index }: Layer,
  { pack, offsetBytes, lengthBytes, chunks }: PackRange,
  found: { servedBy: Set<string>; rotten: PlacedChunk[] },
  signal: AbortSignal,
): AsyncGenerator<FetchedChunk> {
  const { servedBy, rotten } = found
  const options = { offsetBytes, lengthBytes, servedBy, tries: rangeTries }
  const bytes = takeBuffer(lengthBytes)
  let filledBytes = 0
  let next = 0
  try {
    for await (const piece of client.streamBlob(repository, pack, options, signal)) {
      piece.copy(bytes, filledBytes)
      filledBytes += piece.length
      for (let chunk = chunks[next]; chunk !== undefined; chunk = chunks[++next]) {
        const startBytes = chunk.location.offsetBytes - offsetBytes
        const endBytes = startBytes + chunk.location.lengthBytes
        if (endBytes > filledBytes) break
        const plain = decode(bytes.subarray(startBytes, endBytes), chunk.number, index, servedBy)
        if (plain === undefined) rotten.push(chunk)
        else yield { number: chunk.number, bytes: plain }
      }
    }
  } finally {
    giveBuffer(bytes)
  }
}

/** The plain bytes of a chunk's frame; undefined when it is none, or a mirror sent another chunk. */
function decode(
  frame: Buffer,
  number: number,
  index: LayerIndex,
  servedBy: ReadonlySet<string>,
): Buffer | undefined {
  const chunk = index.chunks[number]
  if (chunk === undefined) return undefined
  try {
    const plain = decodeFrame(frame, extentBytes(chunk.extents))
    if (servedBy.size > 0) checkChunk(plain, chunk.digest)
    return plain
  } catch (error) {
    if (isFailure(error, 'chunkInvalid')) return undefined
    throw new Error(`a chunk could not be decoded: ${messageOf(error)}`, { cause: error })
  }
}
