import { failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { createVarintReader, writeVarint } from '../varint.ts'

/**
 * How hosts give each other parts of images: HTTP/2 over TLS 1.3, both sides with a certificate of
 * the fleet, on the transfer port. HEX is the hash of a digest.
 *
 *     GET  /v1/blobs/HEX          a config, the index of a layer, a kernel, an initrd, NVRAM
 *     GET  /v1/layers/HEX/held    which chunks of a layer are here, a bit for each; 204: all
 *     POST /v1/layers/HEX/chunks  chunks; the request's body is runs of numbers
 *
 * A run is two varints (varint.ts), the first number and how many follow on each other from it. The
 * answer is the chunks in the order that they were asked for, without those that can't be had, each
 * behind a head of 12 bytes: its number, the bytes that follow, and how they are packed, each as
 * 32 bits, the lowest byte first. Who says `accept-encoding: zstd` may get chunks packed.
 *
 * 404: nothing of it is here. 400 and 413: the request is not like this. Whoever is no member of
 * the fleet, or no longer, is answered nothing: the connection ends.
 */
export const paths = {
  blob: (digest: string): string => `/v1/blobs/${hexOf(digest)}`,
  held: (digest: string): string => `/v1/layers/${hexOf(digest)}/held`,
  chunks: (digest: string): string => `/v1/layers/${hexOf(digest)}/chunks`,
}

function hexOf(digest: string): string {
  return digest.slice('sha256:'.length)
}

/** What a path asks for; undefined when it is none of ours. */
export interface Asked {
  what: 'blob' | 'held' | 'chunks'
  digest: string
}

/** Reads a request's path. */
export function readPath(path: string): Asked | undefined {
  const [, blob] = /^\/v1\/blobs\/([0-9a-f]{64})$/.exec(path) ?? []
  if (blob !== undefined) return { what: 'blob', digest: `sha256:${blob}` }
  const [, layer, what] = /^\/v1\/layers\/([0-9a-f]{64})\/(held|chunks)$/.exec(path) ?? []
  if (layer === undefined) return undefined
  return { what: what === 'held' ? 'held' : 'chunks', digest: `sha256:${layer}` }
}

/** Chunks whose numbers follow on each other. */
export interface Run {
  first: number
  count: number
}

/** The body of a request for chunks. */
export function encodeRuns(numbers: readonly number[]): Buffer {
  const bytes: number[] = []
  for (let at = 0; at < numbers.length; ) {
    const first = numbers[at] ?? 0
    let count = 1
    while (numbers[at + count] === first + count) count++
    writeVarint(bytes, first)
    writeVarint(bytes, count)
    at += count
  }
  return Buffer.from(bytes)
}

/** Reads the body of a request for chunks. @throws badRequest for anything else */
export function decodeRuns(
  body: Buffer,
  limits: Pick<Limits, 'transferRequestChunks' | 'layerChunks'>,
): Run[] {
  const refuse = (detail: string) => failure('badRequest', { detail })
  const reader = createVarintReader(body, 0, refuse)
  const runs: Run[] = []
  let all = 0
  while (!reader.atEnd()) {
    const run = { first: reader.number(), count: reader.number() }
    all += run.count
    if (run.count === 0 || all > limits.transferRequestChunks) throw refuse('too many chunks')
    if (run.first + run.count > limits.layerChunks) throw refuse('there is no such chunk')
    runs.push(run)
  }
  if (all === 0) throw refuse('it names no chunk')
  return runs
}

/** How a chunk's bytes travel. */
export type Packing = 'plain' | 'zstd'

const headBytes = 12
const packings: readonly Packing[] = ['plain', 'zstd']

/** What comes before a chunk's bytes. */
export interface ChunkHead {
  number: number
  lengthBytes: number
  /** Undefined: in a way that we do not know. */
  packing: Packing | undefined
}

/** Writes the head of a chunk. */
export function encodeHead(head: ChunkHead & { packing: Packing }): Buffer {
  const { number, lengthBytes, packing } = head
  const bytes = Buffer.allocUnsafe(headBytes)
  bytes.writeUInt32LE(number, 0)
  bytes.writeUInt32LE(lengthBytes, 4)
  bytes.writeUInt32LE(packings.indexOf(packing), 8)
  return bytes
}

/** Puts chunks together again from pieces as they come. */
export interface ChunkReader {
  /** @throws what `makeRoom` and `take` throw */
  push(piece: Uint8Array): void
  /** Whether the last chunk is complete. */
  atBorder(): boolean
}

/** Takes chunks from the wire. */
export interface ChunkTaker {
  /**
   * Throws for a chunk that is not to come, not so long, empty, or packed as nobody knows.
   * @returns where its bytes go, as long as they are
   */
  makeRoom(head: ChunkHead): Buffer
  take(head: ChunkHead, bytes: Buffer): void
}

/** Reads chunks that another host sends, and believes none of it. */
export function createChunkReader({ makeRoom, take }: ChunkTaker): ChunkReader {
  const headMemory = Buffer.alloc(headBytes)
  let head: ChunkHead | undefined
  let target: Buffer = headMemory
  let filled = 0
  return {
    push(piece) {
      for (let at = 0; at < piece.length; ) {
        const taken = Math.min(piece.length - at, target.length - filled)
        target.set(taken === piece.length ? piece : piece.subarray(at, at + taken), filled)
        at += taken
        filled += taken
        if (filled < target.length) return
        filled = 0
        if (head === undefined) {
          head = decodeHead(headMemory)
          target = makeRoom(head)
        } else {
          take(head, target)
          head = undefined
          target = headMemory
        }
      }
    },
    atBorder: () => head === undefined && filled === 0,
  }
}

function decodeHead(bytes: Buffer): ChunkHead {
  const packing = packings[bytes.readUInt32LE(8)]
  return { number: bytes.readUInt32LE(0), lengthBytes: bytes.readUInt32LE(4), packing }
}
