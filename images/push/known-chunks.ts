import { isFailure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import { type ChunkLocation, decodeLocations, type Pack } from '../format/locations.ts'
import { type Descriptor, decodeManifest, type ManifestLayer } from '../format/manifest.ts'
import { decodeLayerIndex, type LayerIndex } from '../layer-index.ts'
import type { Destination } from './destination.ts'
import type { PackLedger } from './pack-ledger.ts'
import type { PushRequest } from './push-request.ts'

/** By digest, where chunks lie. */
type Places = Map<string, ChunkLocation>

/** Where chunks were said to lie, in the packs of one repository. */
interface Hint {
  repository: string
  places: Places
}

/** What the search for known chunks goes by. */
export interface KnownChunksInit {
  request: PushRequest
  /** The image's own layers, base first, and their digests. */
  layers: readonly { digest: string; index: LayerIndex }[]
  /** The chunks that are looked for. */
  wanted: ReadonlySet<string>
}

/** What the search needs. */
export interface KnownChunksComponents {
  destination: Destination
  ledger: PackLedger
  limits: Limits
  log: Log
}

/**
 * Where wanted chunks lie in the registry already: in packs that it has in this repository, or
 * gives to it from another. What was said of a pack counts only when the registry has it still.
 */
export async function findKnownChunks(
  init: KnownChunksInit,
  components: KnownChunksComponents,
  signal: AbortSignal,
): Promise<Places> {
  const known: Places = new Map()
  const checks = new Map<string, Promise<boolean>>()
  for await (const { repository, places } of hints(init, components, signal)) {
    const packs = new Map<string, Pack>()
    for (const [digest, { pack }] of places) {
      if (!known.has(digest)) packs.set(pack.digest, pack)
    }
    const list = [...packs.values()]
    const atOnce = components.limits.pushQuestionsAtOnce
    for (let at = 0; at < list.length; at += atOnce) {
      await Promise.all(
        list.slice(at, at + atOnce).map(pack => {
          const key = `${repository} ${pack.digest} ${pack.sizeBytes}`
          const check = checks.get(key) ?? hasPack(init, repository, pack, components, signal)
          checks.set(key, check)
          return check
        }),
      )
    }
    for (const [digest, place] of places) {
      const { pack } = place
      const isThere = await checks.get(`${repository} ${pack.digest} ${pack.sizeBytes}`)
      if (isThere && !known.has(digest)) known.set(digest, place)
    }
  }
  return known
}

async function hasPack(
  { request: { repository } }: KnownChunksInit,
  from: string,
  pack: Pack,
  { destination, ledger }: KnownChunksComponents,
  signal: AbortSignal,
): Promise<boolean> {
  const isIn = async () =>
    (await destination.blobBytes(repository, pack.digest, signal)) === pack.sizeBytes
  if (await isIn()) return true
  if (from === repository) {
    await ledger.forget(destination.host, repository, pack)
    return false
  }
  try {
    return (await destination.mountBlob(repository, pack.digest, from, signal)) && (await isIn())
  } catch (error) {
    // Whoever may push here need not be allowed to read there.
    if (isFailure(error, 'registryDenied')) return false
    throw error
  }
}

/** First what the tag has now, because its packs are kept anyway; what we remember comes last. */
async function* hints(
  init: KnownChunksInit,
  components: KnownChunksComponents,
  signal: AbortSignal,
): AsyncGenerator<Hint> {
  const { request, wanted } = init
  const { repository, origin } = request
  const { destination, ledger, log } = components
  const attempt = async (what: string, work: () => Promise<Places> | Places): Promise<Places> => {
    try {
      return await work()
    } catch (error) {
      signal.throwIfAborted()
      log.warn({ detail: messageOf(error) }, `${what} does not help a push`)
      return new Map()
    }
  }
  const ofTag = () => placesOfTag(init, components, signal)
  yield { repository, places: await attempt('what the tag names now', ofTag) }
  if (origin !== undefined) {
    const ofOrigin = () => placesOfOrigin(origin.locations, init, components.limits)
    yield {
      repository: origin.repository,
      places: await attempt('where the image came from', ofOrigin),
    }
  }
  for await (const { repository: from, pack, chunks } of ledger.of(destination.host)) {
    const places: Places = new Map()
    let offsetBytes = 0
    for (const { digest, lengthBytes } of chunks) {
      if (wanted.has(digest)) places.set(digest, { pack, offsetBytes, lengthBytes })
      offsetBytes += lengthBytes
    }
    if (places.size > 0) yield { repository: from, places }
  }
}

async function placesOfTag(
  { request, layers, wanted }: KnownChunksInit,
  { destination, limits }: KnownChunksComponents,
  signal: AbortSignal,
): Promise<Places> {
  const { repository, tag } = request
  const places: Places = new Map()
  const bytes = await destination.readManifest(repository, tag, signal)
  if (bytes === undefined) return places
  const read = ({ digest, sizeBytes }: Descriptor) =>
    destination.readBlob(repository, digest, sizeBytes, signal)
  const indexOf = async ({ index }: ManifestLayer): Promise<LayerIndex> => {
    const ours = layers.find(({ digest }) => digest === index.digest)
    return ours?.index ?? decodeLayerIndex(await read(index), limits)
  }
  for (const layer of decodeManifest(bytes, limits).layers) {
    const index = await indexOf(layer)
    const locations = await read(layer.locations)
    for (const [digest, place] of placesOf(index, locations, wanted, limits)) {
      if (!places.has(digest)) places.set(digest, place)
    }
  }
  return places
}

function placesOfOrigin(
  encoded: readonly (Uint8Array | undefined)[],
  { layers, wanted }: KnownChunksInit,
  limits: Limits,
): Places {
  const places: Places = new Map()
  for (const [at, { index }] of layers.entries()) {
    const locations = encoded[at]
    if (locations === undefined) continue
    for (const [digest, place] of placesOf(index, locations, wanted, limits)) {
      places.set(digest, place)
    }
  }
  return places
}

function placesOf(
  index: LayerIndex,
  encoded: Uint8Array,
  wanted: ReadonlySet<string>,
  limits: Limits,
): Places {
  const locations = decodeLocations(encoded, index.chunks.length, limits)
  const places: Places = new Map()
  for (const [chunk, { digest }] of index.chunks.entries()) {
    if (wanted.has(digest) && !places.has(digest)) places.set(digest, locations.at(chunk))
  }
  return places
}
