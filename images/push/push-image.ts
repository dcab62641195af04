import { mkdtemp, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../../base/clock.ts'
import { assert, failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { composeLayers } from '../composition.ts'
import { fitLayers } from '../fit-layers.ts'
import { type ChunkLocation, encodeLocations, type Pack } from '../format/locations.ts'
import { imageFiles } from '../image-files.ts'
import { readLayers } from '../image-folder.ts'
import { extentBytes, type LayerIndex } from '../layer-index.ts'
import { type CoveredChunk, type CoveredChunksComponents, findCovered } from './covered-chunks.ts'
import type { Destination } from './destination.ts'
import { findKnownChunks } from './known-chunks.ts'
import type { PackLedger } from './pack-ledger.ts'
import type { PackedChunk } from './pack-messages.ts'
import { type Packer, startPacker } from './packer.ts'
import { createPushMeter, type PushMeter, type PushProgress } from './progress.ts'
import { pushManifest } from './push-manifest.ts'
import type { PushRequest } from './push-request.ts'

/** What is pushed, and where it is made ready. */
export interface PushInit {
  request: PushRequest
  /** A folder for packs that are under way. */
  workFolder: string
}

/** What a push needs. */
export interface PushComponents extends CoveredChunksComponents {
  destination: Destination
  ledger: PackLedger
  clock: Clock
  limits: Limits
}

/** How a push is watched and ended. */
export interface PushOptions {
  signal: AbortSignal
  onProgress?: (progress: PushProgress) => void
}

/** What a push has done. */
export interface Pushed {
  /** Of the manifest. */
  digest: string
  /** Chunks of the image, each once, and those that the registry did not have. */
  chunkCount: number
  newChunkCount: number
  /** Bytes of the packs that were sent. */
  packBytes: number
}

/**
 * Sends what a registry does not have of an image: chunks in new packs, then what says where all
 * chunks lie, and the manifest last. What was sent stays known when it is cut in the middle.
 * @throws layerIncomplete, chunkInvalid, diskFull's system error, what the destination throws
 */
export async function pushImage(
  init: PushInit,
  components: PushComponents,
  { signal, onProgress = () => {} }: PushOptions,
): Promise<Pushed> {
  const { request } = init
  const { image } = request
  const { limits, clock, destination } = components
  const encoded = await readLayers(image)
  const indexes = fitLayers(image.config, encoded, limits)
  const layers = image.config.layers.map(({ digest }, at) => ({
    digest,
    index: layerAt(indexes, at),
  }))
  const chunks = chunksOf(request, indexes)
  const wanted = new Set(chunks.keys())
  const known = await findKnownChunks({ request, layers, wanted }, components, signal)
  const fresh = [...chunks.values()].filter(({ digest }) => !known.has(digest))
  const totalBytes = fresh.reduce((sum, { plainBytes }) => sum + plainBytes, 0)
  let packBytes = 0
  const meter = createPushMeter(totalBytes, clock, progress => {
    packBytes = progress.sentBytes
    onProgress(progress)
  })
  await sendChunks(init, { fresh, layers, known, meter }, components, signal)
  const locations = indexes.map(index =>
    encodeLocations(index.chunks.map(({ digest }) => placeOf(known, digest))),
  )
  const packs = new Map<string, Pack>()
  for (const { digest } of indexes.flatMap(index => index.chunks)) {
    const { pack } = placeOf(known, digest)
    packs.set(pack.digest, pack)
  }
  const parts = { encoded, locations, packs: [...packs.values()] }
  const digest = await pushManifest(request, parts, destination, signal)
  return {
    digest,
    chunkCount: chunks.size,
    newChunkCount: fresh.length,
    packBytes,
  }
}

/** A chunk of the image, and where its bytes are here; undefined when they have to be looked for. */
interface WantedChunk extends CoveredChunk {
  plainBytes: number
  place: PackedChunk | undefined
}

/** Each chunk once, by digest, base first and in the order of the disk. */
function chunksOf(
  { image }: PushRequest,
  indexes: readonly LayerIndex[],
): Map<string, WantedChunk> {
  const file = join(image.path, imageFiles.disk)
  const chunks = new Map<string, WantedChunk>()
  for (const [at, { index, covered }] of composeLayers(indexes).entries()) {
    const layerDigest = image.config.layers[at]?.digest ?? ''
    for (const [number, { digest, extents }] of index.chunks.entries()) {
      const isHere = !covered.has(number)
      // One that is covered here may be seen whole where another layer has it again.
      if (chunks.has(digest) && (chunks.get(digest)?.place !== undefined || !isHere)) continue
      const place = isHere ? { digest, file, extents } : undefined
      chunks.set(digest, { digest, layerDigest, number, plainBytes: extentBytes(extents), place })
    }
  }
  return chunks
}

interface SendInit {
  fresh: readonly WantedChunk[]
  layers: readonly { digest: string; index: LayerIndex }[]
  /** Gets the places of what was sent. */
  known: Map<string, ChunkLocation>
  meter: PushMeter
}

/** Makes packs of chunks that are new to the registry and sends them; one is made ahead. */
async function sendChunks(
  init: PushInit,
  { fresh, layers, known, meter }: SendInit,
  components: PushComponents,
  signal: AbortSignal,
): Promise<void> {
  if (fresh.length === 0) return
  const folder = await mkdtemp(join(init.workFolder, 'push-'))
  const packer = startPacker()
  try {
    const covered = fresh.filter(({ place }) => place === undefined)
    const indexes = new Map(layers.map(({ digest, index }) => [digest, index]))
    const path = join(folder, 'chunks')
    const found = await findCovered(covered, indexes, path, components, signal)
    const queue = fresh.map(chunk => ({ ...chunk, place: chunk.place ?? found.get(chunk.digest) }))
    for await (const made of packsOf(queue, folder, packer, components.limits)) {
      signal.throwIfAborted()
      await sendPack(init, made, { known, meter }, components, signal)
      await rm(made.path)
    }
  } finally {
    await packer.close()
    await rm(folder, { recursive: true, force: true })
  }
}

interface MadePack {
  path: string
  pack: Pack
  lengths: number[]
  chunks: readonly WantedChunk[]
}

/** One pack is being made while the one before it is being sent. */
async function* packsOf(
  queue: readonly WantedChunk[],
  folder: string,
  packer: Packer,
  limits: Limits,
): AsyncGenerator<MadePack> {
  let at = 0
  let number = 0
  const make = async (): Promise<MadePack | undefined> => {
    const chunks = queue.slice(at, at + limits.pushPackChunks)
    if (chunks.length === 0) return undefined
    const made = await packer.pack({
      path: join(folder, `pack-${number++}`),
      chunks: chunks.map(({ place }) => {
        assert(place !== undefined, 'every chunk was found')
        return place
      }),
      limitBytes: limits.pushPackBytes,
    })
    assert(made.lengths.length > 0, 'a pack has room for a chunk')
    at += made.lengths.length
    return { ...made, chunks: chunks.slice(0, made.lengths.length) }
  }
  let next = make()
  for (let made = await next; made !== undefined; made = await next) {
    next = make()
    // Its failure is met when its turn comes, and nowhere before.
    next.catch(() => {})
    yield made
  }
}

async function sendPack(
  { request: { repository } }: PushInit,
  { path, pack, lengths, chunks }: MadePack,
  { known, meter }: Pick<SendInit, 'known' | 'meter'>,
  { destination, ledger }: PushComponents,
  signal: AbortSignal,
): Promise<void> {
  const plainBytes = chunks.reduce((sum, chunk) => sum + chunk.plainBytes, 0)
  const size = { plainBytes, sizeBytes: pack.sizeBytes }
  // It is there already when we were killed before the ledger had it.
  if ((await destination.blobBytes(repository, pack.digest, signal)) === undefined) {
    const file = await open(path, 'r')
    const read = async (offsetBytes: number, lengthBytes: number) => {
      const bytes = Buffer.allocUnsafe(lengthBytes)
      const { bytesRead } = await file.read(bytes, 0, lengthBytes, offsetBytes)
      if (bytesRead < lengthBytes) throw failure('internal', { detail: 'a pack became shorter' })
      return bytes
    }
    const onSent = (bytes: number) => meter.sending(size, bytes)
    try {
      await destination.uploadBlob(repository, { ...pack, read }, signal, onSent)
    } finally {
      await file.close()
    }
  }
  const entries = chunks.map(({ digest }, at) => ({ digest, lengthBytes: lengths[at] ?? 0 }))
  await ledger.add(destination.host, { repository, pack, chunks: entries })
  let offsetBytes = 0
  for (const { digest, lengthBytes } of entries) {
    known.set(digest, { pack, offsetBytes, lengthBytes })
    offsetBytes += lengthBytes
  }
  meter.finished(size)
}

function placeOf(known: ReadonlyMap<string, ChunkLocation>, digest: string): ChunkLocation {
  const place = known.get(digest)
  assert(place !== undefined, `${digest} is with the registry`)
  return place
}

function layerAt(indexes: readonly LayerIndex[], at: number): LayerIndex {
  const index = indexes[at]
  assert(index !== undefined, `there is a layer ${at}`)
  return index
}
