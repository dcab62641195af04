import { generateKeyPair, privateKeyFromRaw, publicKeyFromRaw } from '@libp2p/crypto/keys'
import type { Ed25519PrivateKey } from '@libp2p/interface'
import { peerIdFromPrivateKey, peerIdFromPublicKey } from '@libp2p/peer-id'
import { assert } from '../../base/errors.ts'

/** The key that is a host's identity, for libp2p and for every proof. */
export interface PeerKey {
  /** As libp2p takes it. */
  privateKey: Ed25519PrivateKey
  peerId: string
  /** The 32 bytes of the public half (RFC 8032). */
  publicKey: Buffer
  sign(digest: Buffer): Promise<Buffer>
}

/** Makes a new one. */
export async function createPeerKey(): Promise<PeerKey> {
  return peerKeyOf(await generateKeyPair('Ed25519'))
}

/** The text that `readPeerKey` reads: base64 of the private and public bytes. Secret. */
export function peerKeyText({ privateKey }: PeerKey): string {
  return `${Buffer.from(privateKey.raw).toString('base64')}\n`
}

/** Reads what `peerKeyText` wrote. Throws on anything else. */
export function readPeerKey(text: string): PeerKey {
  const bytes = Buffer.from(text.trim(), 'base64')
  assert(bytes.length === 64, 'an Ed25519 private key has 64 bytes')
  const key = privateKeyFromRaw(bytes)
  assert(key.type === 'Ed25519', 'the peer key is an Ed25519 key')
  return peerKeyOf(key)
}

function peerKeyOf(privateKey: Ed25519PrivateKey): PeerKey {
  return {
    privateKey,
    peerId: peerIdFromPrivateKey(privateKey).toString(),
    publicKey: Buffer.from(privateKey.publicKey.raw),
    sign: async digest => Buffer.from(await privateKey.sign(digest)),
  }
}

/**
 * The peer id of whoever holds the private half of a key, once the signature shows that.
 * @param publicKey the 32 bytes of an Ed25519 key, from outside
 * @returns undefined when the key is none, or the signature is not by it
 */
export async function provenPeerId(
  publicKey: Buffer,
  digest: Buffer,
  signature: Buffer,
): Promise<string | undefined> {
  if (publicKey.length !== 32 || signature.length !== 64) return undefined
  try {
    const key = publicKeyFromRaw(publicKey)
    if (key.type !== 'Ed25519' || !(await key.verify(digest, signature))) return undefined
    return peerIdFromPublicKey(key).toString()
  } catch {
    return undefined
  }
}
