import { createHash } from 'node:crypto'
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { assert, failure } from '../../base/errors.ts'
import { digestOf } from '../layer-index.ts'

/** Log2 of the window that a frame may ask its reader to keep: 8 MiB, as RFC 8878 advises. */
const windowLogMax = 23

/** The digest of some bytes. */
export function digestBytes(bytes: Uint8Array): string {
  return digestOf(createHash('sha256').update(bytes).digest())
}

/**
 * Compresses a chunk's plain bytes into one zstd frame; the same bytes always give the same. It
 * takes about a millisecond a chunk: for threads of their own.
 */
export function encodeFrame(plain: Uint8Array): Buffer {
  return zstdCompressSync(plain)
}

/**
 * The plain bytes of a frame that anybody may have made, not yet compared with a digest. Never
 * takes more memory than the chunk and a window of 8 MiB, whatever the frame says of itself.
 * @param plainBytes as the chunk's extents say
 * @throws chunkInvalid when it is damaged or holds more or fewer bytes
 */
export function decodeFrame(frame: Uint8Array, plainBytes: number): Buffer {
  let plain: Buffer
  try {
    plain = zstdDecompressSync(frame, {
      maxOutputLength: plainBytes,
      // One piece: Node would put it together from pieces of 16 KiB, which takes as long again.
      chunkSize: Math.max(64, plainBytes + 64),
      params: { [constants.ZSTD_d_windowLogMax]: windowLogMax },
    })
  } catch (error) {
    throw failure('chunkInvalid', { detail: 'its frame can not be decoded' }, { cause: error })
  }
  if (plain.length !== plainBytes) {
    throw failure('chunkInvalid', { detail: 'it holds fewer bytes than its extents' })
  }
  return plain
}

/** @throws chunkInvalid when the bytes are not those that the digest names */
export function checkChunk(plain: Uint8Array, digest: string): void {
  if (digestBytes(plain) !== digest) {
    throw failure('chunkInvalid', { detail: `its digest is not ${digest}` })
  }
}

/** A pack that is being made: its frames, one after another, are its bytes. */
export interface PackBuilder {
  /** Bytes so far. */
  readonly sizeBytes: number
  /** Whether a frame of this length still goes in. */
  hasRoom(lengthBytes: number): boolean
  /** @returns the offset of the frame in the pack */
  add(frame: Uint8Array): number
  /** The pack's digest, when all is in it. */
  digest(): string
}

/** An empty pack that takes up to `limitBytes`. */
export function createPackBuilder(limitBytes: number): PackBuilder {
  const hash = createHash('sha256')
  let sizeBytes = 0
  return {
    get sizeBytes() {
      return sizeBytes
    },
    hasRoom: lengthBytes => sizeBytes + lengthBytes <= limitBytes,
    add(frame) {
      assert(sizeBytes + frame.length <= limitBytes, 'the pack has room for the frame')
      hash.update(frame)
      sizeBytes += frame.length
      return sizeBytes - frame.length
    },
    digest: () => digestOf(hash.digest()),
  }
}
