import {
  createPrivateKey,
  createPublicKey,
  type KeyObject,
  sign as signBytes,
  verify as verifyBytes,
} from 'node:crypto'
import { assert } from '../../base/errors.ts'
import type { Random } from '../../base/random.ts'

/**
 * Who a host is among its peers: an Ed25519 key, and the peer id that is made of its public half.
 * Made with node's own crypto, so that a host without a fleet loads nothing of libp2p.
 */
export interface Identity {
  /** The peer id as text, for example 12D3KooW... */
  peerId: string
  /** What is kept on disk (secret): 32 bytes, the seed of the key (RFC 8032, section 5.1.5). */
  secret(): Uint8Array
  /** The public key's 32 bytes. */
  publicKey(): Uint8Array
  sign(bytes: Uint8Array): Uint8Array
}

const keyBytes = 32
/** What comes before the key in PKCS#8 and SubjectPublicKeyInfo (RFC 8410, section 10). */
const privatePrefix = Buffer.from('302e020100300506032b657004220420', 'hex')
const publicPrefix = Buffer.from('302a300506032b6570032100', 'hex')
/**
 * What comes before the key in a peer id (the libp2p specification "peer ids"): an identity
 * multihash of 36 bytes, which are a protobuf message of key type 1 (Ed25519) and 32 bytes.
 */
const multihashPrefix = Buffer.from('002408011220', 'hex')

/** A new identity. */
export function createIdentity(random: Random): Identity {
  return loadIdentity(random.bytes(keyBytes))
}

/** The identity of which `secret()` was kept. Throws when these are not 32 bytes. */
export function loadIdentity(secret: Uint8Array): Identity {
  assert(secret.length === keyBytes, `a key has ${keyBytes} bytes, not ${secret.length}`)
  const key = createPrivateKey({
    key: Buffer.concat([privatePrefix, secret]),
    format: 'der',
    type: 'pkcs8',
  })
  const spki = createPublicKey(key).export({ format: 'der', type: 'spki' })
  const publicKey = new Uint8Array(spki.subarray(publicPrefix.length))
  return {
    peerId: peerIdOf(publicKey),
    secret: () => new Uint8Array(secret),
    publicKey: () => new Uint8Array(publicKey),
    sign: bytes => new Uint8Array(signBytes(null, bytes, key)),
  }
}

/** The peer id of an Ed25519 public key of 32 bytes. */
export function peerIdOf(publicKey: Uint8Array): string {
  assert(publicKey.length === keyBytes, `a key has ${keyBytes} bytes, not ${publicKey.length}`)
  return toBase58(Buffer.concat([multihashPrefix, publicKey]))
}

/** The bytes of a peer id as they stand in messages; undefined when it is no Ed25519 peer id. */
export function peerIdBytes(peerId: string): Uint8Array | undefined {
  if (peerId.length > 64) return undefined
  const bytes = fromBase58(peerId)
  const fits = bytes?.length === multihashPrefix.length + keyBytes
  return fits && multihashPrefix.equals(bytes.subarray(0, multihashPrefix.length))
    ? bytes
    : undefined
}

/** The peer id in its bytes; undefined when they are none. */
export function peerIdFromBytes(bytes: Uint8Array): string | undefined {
  const fits = bytes.length === multihashPrefix.length + keyBytes
  if (!fits || !multihashPrefix.equals(bytes.subarray(0, multihashPrefix.length))) return undefined
  return toBase58(bytes)
}

/** Whether `signature` was made over `bytes` by the holder of the key in `peerId`. Never throws. */
export function isSignedBy(peerId: string, bytes: Uint8Array, signature: Uint8Array): boolean {
  const key = publicKeyOf(peerId)
  if (key === undefined || signature.length !== 64) return false
  try {
    return verifyBytes(null, bytes, key, signature)
  } catch {
    return false
  }
}

function publicKeyOf(peerId: string): KeyObject | undefined {
  const bytes = peerIdBytes(peerId)?.subarray(multihashPrefix.length)
  if (bytes === undefined) return undefined
  try {
    const key = Buffer.concat([publicPrefix, bytes])
    return createPublicKey({ key, format: 'der', type: 'spki' })
  } catch {
    return undefined
  }
}

const alphabet = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'

function toBase58(bytes: Uint8Array): string {
  const zeros = bytes.findIndex(byte => byte !== 0)
  let rest = BigInt(`0x${Buffer.from(bytes).toString('hex')}`)
  let text = ''
  while (rest > 0n) {
    text = alphabet.charAt(Number(rest % 58n)) + text
    rest /= 58n
  }
  return '1'.repeat(zeros) + text
}

function fromBase58(text: string): Buffer | undefined {
  let value = 0n
  for (const letter of text) {
    const digit = alphabet.indexOf(letter)
    if (digit < 0) return undefined
    value = value * 58n + BigInt(digit)
  }
  const zeros = text.length - text.replace(/^1+/, '').length
  const hex = value === 0n ? '' : value.toString(16)
  return Buffer.from('00'.repeat(zeros) + (hex.length % 2 === 0 ? hex : `0${hex}`), 'hex')
}
