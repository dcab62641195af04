import { randomBytes } from 'node:crypto'

/** The only source of chance. The system one is fit for secrets; the seeded one is for tests and simulation. */
export interface Random {
  /** `length` random bytes. */
  bytes(length: number): Buffer
}

/** Bytes of the operating system's generator. */
export const systemRandom: Random = { bytes: length => randomBytes(length) }

/** The same bytes for the same seed (splitmix32); never for secrets. */
export function createSeededRandom(seed: number): Random {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x9e3779b9) >>> 0
    let mixed = state
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad)
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97)
    return (mixed ^ (mixed >>> 15)) >>> 0
  }
  return {
    bytes(length) {
      const result = Buffer.alloc(length)
      for (let index = 0; index < length; index++) result[index] = next() & 0xff
      return result
    },
  }
}

/** A whole number from 0 up to, not including, `limit` (at most 2^48), without modulo bias worth naming. */
export function randomInteger(random: Random, limit: number): number {
  return Math.floor((random.bytes(6).readUIntBE(0, 6) / 2 ** 48) * limit)
}

/** A version 4 UUID (RFC 9562, section 5.4). */
export function randomUuid(random: Random): string {
  const bytes = random.bytes(16)
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x40, 6)
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8)
  const hex = bytes.toString('hex')
  return [8, 12, 16, 20].reduceRight((text, at) => `${text.slice(0, at)}-${text.slice(at)}`, hex)
}

/** A suffix for generated names: `length` letters and digits that can't be misread or spell words. */
export function randomSuffix(random: Random, length = 5): string {
  const alphabet = 'bcdfghjklmnpqrstvwxz2456789'
  return Array.from({ length }, () => alphabet[randomInteger(random, alphabet.length)]).join('')
}
