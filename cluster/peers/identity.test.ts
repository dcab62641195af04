import { generateKeyPairFromSeed, privateKeyFromRaw } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createSeededRandom } from '../../base/random.ts'
import {
  createIdentity,
  isSignedBy,
  loadIdentity,
  peerIdBytes,
  peerIdFromBytes,
  peerIdOf,
} from './identity.ts'

const random = createSeededRandom(1)

describe('identity', () => {
  test('is the one that libp2p makes of the same key', async () => {
    for (let round = 0; round < 20; round++) {
      const identity = createIdentity(random)
      const key = privateKeyFromRaw(Buffer.concat([identity.secret(), identity.publicKey()]))
      const theirs = peerIdFromPrivateKey(key)
      expect(identity.peerId).toBe(theirs.toString())
      expect(Buffer.from(peerIdBytes(identity.peerId) ?? [])).toEqual(
        Buffer.from(theirs.toMultihash().bytes),
      )
      const pair = await generateKeyPairFromSeed('Ed25519', identity.secret())
      expect(Buffer.from(identity.publicKey())).toEqual(Buffer.from(pair.publicKey.raw))
      const signature = identity.sign(Buffer.from('text'))
      expect(await key.publicKey.verify(Buffer.from('text'), signature)).toBe(true)
    }
  })

  test('is the same again when its secret is loaded', () => {
    const identity = createIdentity(random)
    const again = loadIdentity(identity.secret())
    expect(again.peerId).toBe(identity.peerId)
    expect(isSignedBy(identity.peerId, Buffer.from('a'), again.sign(Buffer.from('a')))).toBe(true)
    expect(() => loadIdentity(new Uint8Array(31))).toThrow('32 bytes')
    expect(peerIdOf(identity.publicKey())).toBe(identity.peerId)
  })

  test('proves nothing of other bytes, other keys and garbage', () => {
    const [identity, other] = [createIdentity(random), createIdentity(random)]
    const bytes = Buffer.from('said')
    const signature = identity.sign(bytes)
    expect(isSignedBy(identity.peerId, bytes, signature)).toBe(true)
    expect(isSignedBy(other.peerId, bytes, signature)).toBe(false)
    expect(isSignedBy(identity.peerId, Buffer.from('sang'), signature)).toBe(false)
    fc.assert(
      fc.property(fc.string(), fc.uint8Array(), (peerId, signature) => {
        expect(isSignedBy(peerId, bytes, signature)).toBe(false)
        expect(isSignedBy(identity.peerId, bytes, signature)).toBe(false)
      }),
    )
  })

  test('peer ids are read back, and nothing else is one', () => {
    const { peerId } = createIdentity(random)
    expect(peerIdFromBytes(peerIdBytes(peerId) ?? new Uint8Array())).toBe(peerId)
    for (const wrong of ['', '1', `${peerId}1`, peerId.slice(1), '0OIl', 'x'.repeat(10_000)]) {
      expect(peerIdBytes(wrong)).toBeUndefined()
    }
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), bytes => {
        expect(peerIdFromBytes(bytes)).toBeUndefined()
      }),
    )
  })
})
