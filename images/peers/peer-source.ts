import { zstdDecompressSync } from 'node:zlib'
import { failure } from '../../base/errors.ts'
import { extentBytes, type LayerIndex } from '../layer-index.ts'
import type { FetchedChunk, ImageSource, LayerSource, PeerDescription } from '../sources/source.ts'
import { type Answer, askPeer } from './ask-peer.ts'
import { type ChunkMemory, createChunkMemory } from './chunk-memory.ts'
import { createLinkSpeed, type LinkSpeed } from './link-speed.ts'
import {
  createPeerConnection,
  type PeerConnection,
  type PeerSourceComponents,
} from './peer-connection.ts'
import { type ChunkReader, createChunkReader, encodeRuns, paths } from './wire.ts'

export type { PeerSourceComponents } from './peer-connection.ts'

/** Memory for so many chunks stays with a source. */
const chunksKept = 8

interface Context extends PeerSourceComponents {
  connection: PeerConnection
  speed: LinkSpeed
  memory: ChunkMemory
}

/** Another host of the fleet as a source (wire.ts); one connection for all that is asked of it. */
export function createPeerSource(
  description: PeerDescription,
  components: PeerSourceComponents,
): ImageSource {
  const connection = createPeerConnection(description, components)
  const speed = createLinkSpeed(components.clock)
  const context = { ...components, connection, speed, memory: createChunkMemory(chunksKept) }
  return {
    name: `host ${description.name}`,
    kind: 'peer',
    readBlob: (digest, limitBytes, signal) => readBlob(digest, limitBytes, context, signal),
    openLayer: async (digest, index) => createLayerSource(digest, index, context),
    close: () => connection.close(),
  }
}

function createLayerSource(digest: string, index: LayerIndex, context: Context): LayerSource {
  return {
    held: signal => readHeld(digest, index, context, signal),
    async *fetch(chunks, signal) {
      const most = context.limits.transferRequestChunks
      for (let at = 0; at < chunks.length; at += most) {
        yield* fetchChunks(digest, index, chunks.slice(at, at + most), context, signal)
      }
    },
  }
}

async function* readBlob(
  digest: string,
  limitBytes: number,
  context: Context,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const answer = await askPeer({ headers: { ':path': paths.blob(digest) } }, context, signal)
  try {
    checkStatus(answer, digest, context)
    const come: Buffer[] = []
    let bytes = 0
    let waitingBytes = 0
    const body = answer.read(piece => {
      bytes += piece.length
      if (bytes > limitBytes) throw context.connection.failed('a part is larger than it may be')
      waitingBytes += piece.length
      come.push(piece)
      return waitingBytes < aheadBytes
    })
    while (!(await body.next(() => come.length > 0))) {
      for (let piece = come.shift(); piece !== undefined; piece = come.shift()) {
        waitingBytes -= piece.length
        yield piece
      }
    }
  } finally {
    answer.end()
  }
}

async function readHeld(
  digest: string,
  index: LayerIndex,
  context: Context,
  signal: AbortSignal,
): Promise<Uint8Array | undefined> {
  const answer = await askPeer({ headers: { ':path': paths.held(digest) } }, context, signal)
  try {
    if (answer.status === 204) return undefined
    checkStatus(answer, digest, context)
    const held = new Uint8Array(Math.ceil(index.chunks.length / 8))
    const refuse = () => context.connection.failed('it does not say well which chunks it has')
    let bytes = 0
    const body = answer.read(piece => {
      if (bytes + piece.length > held.length) throw refuse()
      held.set(piece, bytes)
      bytes += piece.length
      return true
    })
    await body.next(() => false)
    if (bytes < held.length) throw refuse()
    return held
  } finally {
    answer.end()
  }
}

function checkStatus({ status }: Answer, digest: string, { connection }: Context): void {
  if (status === 404) throw failure('notFound', { resource: 'part of an image', name: digest })
  if (status !== 200) throw connection.failed(`it answered with status ${status}`)
}

/** Plain bytes that have come and are not taken yet, before more is let come. */
const aheadBytes = 4 * 1024 * 1024

async function* fetchChunks(
  digest: string,
  index: LayerIndex,
  chunks: readonly number[],
  context: Context,
  signal: AbortSignal,
): AsyncGenerator<FetchedChunk> {
  const { speed, connection } = context
  const packing = speed.isSlow() ? { 'accept-encoding': 'zstd' } : {}
  const headers = { ':path': paths.chunks(digest), ':method': 'POST', ...packing }
  const answer = await askPeer({ headers, body: encodeRuns(chunks) }, context, signal)
  try {
    checkStatus(answer, digest, context)
    const come: FetchedChunk[] = []
    let waitingBytes = 0
    const reader = readChunks(chunks, index, context, chunk => {
      waitingBytes += chunk.bytes.length
      come.push(chunk)
    })
    const body = answer.read(piece => {
      reader.push(piece)
      return waitingBytes < aheadBytes
    })
    for (;;) {
      const waited = speed.wait()
      const isOver = await body.next(() => come.length > 0).finally(waited)
      if (isOver) break
      for (let chunk = come.shift(); chunk !== undefined; chunk = come.shift()) {
        waitingBytes -= chunk.bytes.length
        yield chunk
      }
    }
    if (!reader.atBorder()) throw connection.failed('its answer ends in the middle of a chunk')
  } finally {
    answer.end()
  }
}

/** Reads the chunks that were asked for, each at most once, and refuses everything else. */
function readChunks(
  chunks: readonly number[],
  index: LayerIndex,
  { speed, connection, memory }: Context,
  onChunk: (chunk: FetchedChunk) => void,
): ChunkReader {
  const wanted = new Map(
    chunks.map(number => [number, extentBytes(index.chunks[number]?.extents ?? [])]),
  )
  return createChunkReader({
    makeRoom({ number, lengthBytes, packing }) {
      const plainBytes = wanted.get(number) ?? 0
      const fits =
        packing === 'plain' ? lengthBytes === plainBytes : packing && lengthBytes < plainBytes
      if (!fits || lengthBytes === 0) throw connection.failed('it sends what it was not asked for')
      return memory.take().subarray(0, lengthBytes)
    },
    take({ number, packing }, room) {
      const plainBytes = wanted.get(number) ?? 0
      wanted.delete(number)
      speed.came(room.length)
      const release = () => memory.give(wholeOf(room))
      if (packing === 'plain') return onChunk({ number, bytes: room, release })
      const bytes = unpack(room, plainBytes)
      release()
      if (bytes === undefined) throw connection.failed('a chunk can not be unpacked to its length')
      onChunk({ number, bytes })
    },
  })
}

/** The memory that part of was taken. */
function wholeOf({ buffer }: Buffer): Buffer {
  return Buffer.from(buffer)
}

/** @returns undefined when it does not have this length */
function unpack(packed: Buffer, plainBytes: number): Buffer | undefined {
  try {
    const bytes = zstdDecompressSync(packed, { maxOutputLength: plainBytes })
    return bytes.length === plainBytes ? bytes : undefined
  } catch {
    return undefined
  }
}
