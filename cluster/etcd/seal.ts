import { createCipheriv, createDecipheriv, createHash, scrypt, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'
import { assert } from '../../base/errors.ts'
import type { Random } from '../../base/random.ts'

/*
 * A sealed stream:
 *
 *   header  "macfleet backup\n", version (1 byte), log2 of scrypt's N (1 byte), salt (16 bytes),
 *           check (16 bytes)
 *   frame   length of its text and whether it is the last (4 bytes: bit 31 is "last"), the text
 *           enciphered, tag (16 bytes); any number, of up to 1 MiB of text each
 *
 * scrypt (RFC 7914; r 8, p 1) makes 64 bytes of the passphrase and the salt: the key, and what
 * `check` is the digest of, so that a wrong passphrase can be told from a damaged file. Each frame
 * is AES-256-GCM under that key, which no other file has because of the salt; its nonce is its
 * number, and it authenticates header and length. So frames can't be changed, swapped, left out or
 * cut off at the end.
 */

/** Why a sealed stream was refused. */
export type SealRefusal = 'notSealed' | 'unknownVersion' | 'wrongPassphrase' | 'altered'

/** A sealed stream that can't be opened. */
export class SealError extends Error {
  readonly refusal: SealRefusal

  constructor(refusal: SealRefusal) {
    super(refusal)
    this.name = 'SealError'
    this.refusal = refusal
  }
}

const magic = Buffer.from('macfleet backup\n')
const version = 1
const saltBytes = 16
const checkBytes = 16
const headerBytes = magic.length + 2 + saltBytes + checkBytes
const frameBytes = 1024 * 1024
const tagBytes = 16
const lastFlag = 2 ** 31
/**
 * log2 of scrypt's cost: 128 MiB and about 0.4 s a try. A file may ask for at most a little more.
 */
export const defaultScryptCost = 17
const scryptCosts = { least: 10, most: 18 }

const derive = promisify<string, Buffer, number, object, Buffer>(scrypt)

interface Keys {
  key: Buffer
  check: Buffer
}

async function keysOf(passphrase: string, salt: Buffer, cost: number): Promise<Keys> {
  const options = { N: 2 ** cost, r: 8, p: 1, maxmem: 256 * 8 * 2 ** cost }
  const bytes = await derive(passphrase.normalize('NFC'), salt, 64, options)
  const check = createHash('sha256').update(bytes.subarray(32)).digest().subarray(0, checkBytes)
  return { key: bytes.subarray(0, 32), check }
}

function nonceOf(frame: number): Buffer {
  const nonce = Buffer.alloc(12)
  nonce.writeUIntBE(frame, 6, 6)
  return nonce
}

/**
 * Seals a stream to a passphrase; holds one frame of it in memory.
 * @param cost log2 of scrypt's N; `defaultScryptCost` in service
 */
export async function* seal(
  text: AsyncIterable<Buffer>,
  passphrase: string,
  { random, cost }: { random: Random; cost: number },
): AsyncGenerator<Buffer> {
  assert(cost >= scryptCosts.least && cost <= scryptCosts.most, 'a cost that open() takes')
  const salt = random.bytes(saltBytes)
  const { key, check } = await keysOf(passphrase, salt, cost)
  const header = Buffer.concat([magic, Buffer.from([version, cost]), salt, check])
  yield header
  let frame = 0
  const frameOf = (plain: Buffer, isLast: boolean): Buffer => {
    const length = Buffer.alloc(4)
    length.writeUInt32BE(plain.length + (isLast ? lastFlag : 0))
    const cipher = createCipheriv('aes-256-gcm', key, nonceOf(frame++))
    cipher.setAAD(Buffer.concat([header, length]))
    const enciphered = Buffer.concat([cipher.update(plain), cipher.final()])
    return Buffer.concat([length, enciphered, cipher.getAuthTag()])
  }
  let rest: Buffer = Buffer.alloc(0)
  for await (const part of text) {
    rest = Buffer.concat([rest, part])
    while (rest.length > frameBytes) {
      yield frameOf(rest.subarray(0, frameBytes), false)
      rest = rest.subarray(frameBytes)
    }
  }
  yield frameOf(rest, true)
}

/**
 * Opens what `seal` made. What was yielded is genuine, but only when it ends without an error was
 * that all of it.
 * @throws SealError
 */
export async function* open(
  sealed: AsyncIterable<Buffer>,
  passphrase: string,
): AsyncGenerator<Buffer> {
  const reader = createReader(sealed)
  const header = await reader.take(headerBytes)
  if (header === undefined || !header.subarray(0, magic.length).equals(magic)) {
    throw new SealError('notSealed')
  }
  const found = header.readUInt8(magic.length)
  const cost = header.readUInt8(magic.length + 1)
  if (found !== version) throw new SealError('unknownVersion')
  if (cost < scryptCosts.least || cost > scryptCosts.most) throw new SealError('altered')
  const salt = header.subarray(magic.length + 2, magic.length + 2 + saltBytes)
  const { key, check } = await keysOf(passphrase, salt, cost)
  if (!timingSafeEqual(check, header.subarray(-checkBytes))) throw new SealError('wrongPassphrase')
  for (let frame = 0; ; frame++) {
    const length = await reader.take(4)
    if (length === undefined) throw new SealError('altered')
    const isLast = length.readUInt32BE() >= lastFlag
    const size = length.readUInt32BE() % lastFlag
    if (size > frameBytes) throw new SealError('altered')
    const body = await reader.take(size + tagBytes)
    if (body === undefined) throw new SealError('altered')
    const decipher = createDecipheriv('aes-256-gcm', key, nonceOf(frame), {
      authTagLength: tagBytes,
    })
    decipher.setAAD(Buffer.concat([header, length]))
    decipher.setAuthTag(body.subarray(size))
    yield finish(decipher.update(body.subarray(0, size)), () => decipher.final())
    if (isLast) break
  }
  if ((await reader.take(1)) !== undefined) throw new SealError('altered')
}

function finish(plain: Buffer, final: () => Buffer): Buffer {
  try {
    final()
    return plain
  } catch {
    throw new SealError('altered')
  }
}

/** Takes exact numbers of bytes; undefined when fewer are left. */
function createReader(stream: AsyncIterable<Buffer>) {
  const iterator = stream[Symbol.asyncIterator]()
  let rest: Buffer = Buffer.alloc(0)
  return {
    async take(bytes: number): Promise<Buffer | undefined> {
      const parts = [rest]
      let have = rest.length
      while (have < bytes) {
        const next = await iterator.next()
        if (next.done) return undefined
        parts.push(next.value)
        have += next.value.length
      }
      const all = Buffer.concat(parts)
      rest = all.subarray(bytes)
      return all.subarray(0, bytes)
    },
  }
}
