import { createHash } from 'node:crypto'

/** Bytes of a filter. With 50 images one other in a thousand seems held, with 200 one in twelve. */
export const filterBytes = 128

const filterBits = filterBytes * 8
/** How many bits an image sets. Two bytes of its digest name each. */
const bitsPerImage = 4

/** A Bloom filter of the digests (sha256:...) of the images that a host holds. */
export function filterOf(digests: Iterable<string>): Uint8Array {
  const filter = new Uint8Array(filterBytes)
  for (const digest of digests) {
    for (const bit of bitsOf(digest)) filter[bit >> 3] = (filter[bit >> 3] ?? 0) | (1 << (bit & 7))
  }
  return filter
}

/** Whether the image may be among those that the filter was made of: `false` is sure. */
export function mayContain(filter: Uint8Array, digest: string): boolean {
  return bitsOf(digest).every(bit => ((filter[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0)
}

/** A digest is as good as chance already, so its own first bytes name the bits. */
function bitsOf(digest: string): number[] {
  const hex = /^sha256:([0-9a-f]{64})$/.exec(digest)?.[1]
  const bytes = Buffer.from(hex ?? createHash('sha256').update(digest).digest('hex'), 'hex')
  return Array.from({ length: bitsPerImage }, (_, at) => bytes.readUInt16BE(2 * at) % filterBits)
}
