import type { ServerHttp2Stream } from 'node:http2'
import { promisify } from 'node:util'
import { zstdCompress } from 'node:zlib'
import type { Clock } from '../../base/clock.ts'
import type { Limits } from '../../base/limits.ts'
import type { ChunkMemory } from './chunk-memory.ts'
import type { ServedImages } from './served-images.ts'
import type { Slots } from './slots.ts'
import type { Throttle } from './throttle.ts'
import { encodeHead, type Packing, type Run } from './wire.ts'

/** What sending to one host needs. */
export interface SendComponents {
  clock: Clock
  limits: Pick<Limits, 'transferStallMs'>
  images: Pick<ServedImages, 'readChunk'>
  /** The host's, and those of all hosts; a chunk takes a place in each. */
  slots: readonly Slots[]
  throttles: readonly Throttle[]
  memory: ChunkMemory
  /** Throws when the host is no member any more. */
  checkMember(): Promise<unknown>
}

/** What one request asks for. */
export interface ChunkRequest {
  layer: string
  runs: readonly Run[]
  /** Whether chunks may be packed. */
  zstd: boolean
}

/** One on its way and the next one being read: the link never waits for the disk. */
const chunksAhead = 2
/** What saves less than this is sent plain, which costs the other host nothing to unpack. */
const worthPacking = 0.9
const compress = promisify(zstdCompress)

/**
 * Sends the chunks of a layer that are here, in the order that they were asked for, no faster than
 * they are taken, and ends the stream.
 * @throws when the stream ends before, or the other side stands still
 */
export async function sendChunks(
  stream: ServerHttp2Stream,
  request: ChunkRequest,
  components: SendComponents,
  signal: AbortSignal,
): Promise<void> {
  const { slots, memory, checkMember } = components
  const under = new Set<Promise<void>>()
  for (const number of numbersOf(request.runs)) {
    await checkMember()
    const giveBack = await takeAll(slots, signal)
    const room = memory.take()
    const release = () => {
      memory.give(room)
      giveBack()
    }
    let parts: Buffer[] | undefined
    try {
      parts = await prepare(request, { number, room }, components, signal)
    } finally {
      if (parts === undefined) release()
    }
    if (parts === undefined) continue
    const sending = write(stream, parts, components).finally(() => {
      under.delete(sending)
      release()
    })
    // Whoever waits for it below learns why; nobody may be waiting when it fails.
    sending.catch(() => {})
    under.add(sending)
    if (under.size >= chunksAhead) await Promise.race(under)
  }
  await Promise.all(under)
  stream.end()
}

/** A chunk as it goes over the wire, as soon as it may; undefined: it is not here. */
async function prepare(
  { layer, zstd }: ChunkRequest,
  { number, room }: { number: number; room: Buffer },
  { images, throttles }: SendComponents,
  signal: AbortSignal,
): Promise<Buffer[] | undefined> {
  const bytes = await images.readChunk(layer, number, room)
  if (bytes === undefined) return undefined
  const { packing, body } = await pack(bytes, zstd)
  for (const throttle of throttles) await throttle.take(body.length, signal)
  return [encodeHead({ number, lengthBytes: body.length, packing }), body]
}

function* numbersOf(runs: readonly Run[]): Generator<number> {
  for (const { first, count } of runs) {
    for (let number = first; number < first + count; number++) yield number
  }
}

async function takeAll(slots: readonly Slots[], signal: AbortSignal): Promise<() => void> {
  const taken: (() => void)[] = []
  const release = () => {
    for (const give of taken) give()
  }
  try {
    for (const each of slots) taken.push(await each.take(signal))
    return release
  } catch (error) {
    release()
    throw error
  }
}

async function pack(bytes: Buffer, zstd: boolean): Promise<{ packing: Packing; body: Buffer }> {
  if (zstd) {
    const packed = await compress(bytes)
    if (packed.length < bytes.length * worthPacking) return { packing: 'zstd', body: packed }
  }
  return { packing: 'plain', body: bytes }
}

/** Writes parts at once; resolves when they have gone. */
export function write(
  stream: ServerHttp2Stream,
  parts: readonly Buffer[],
  { clock, limits }: Pick<SendComponents, 'clock' | 'limits'>,
): Promise<void> {
  return new Promise((resolve, reject) => {
    if (stream.destroyed) return reject(new Error('the stream has ended'))
    const onClose = () => settle(new Error('the stream has ended'))
    const settle = (error?: Error | null) => {
      timer.cancel()
      stream.off('close', onClose)
      if (error) reject(error)
      else resolve()
    }
    const timer = clock.setTimer(limits.transferStallMs, () => {
      settle(new Error('the other host takes nothing'))
    })
    stream.once('close', onClose)
    stream.cork()
    for (const [at, part] of parts.entries()) {
      if (at < parts.length - 1) stream.write(part)
      else stream.write(part, settle)
    }
    stream.uncork()
  })
}
