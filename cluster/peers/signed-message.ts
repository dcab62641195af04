import { isSignedBy, peerIdBytes } from './identity.ts'

/**
 * A message as its sender signed it for a topic. It can be handed on by anybody: who has it can
 * prove who said it.
 */
export interface SignedMessage {
  /** Who said it. */
  peerId: string
  /** The pubsub sequence number: part of what is signed, else without meaning here. */
  sequence: bigint
  data: Uint8Array
  /** 64 bytes, Ed25519. */
  signature: Uint8Array
}

const prefix = Buffer.from('libp2p-pubsub:')

/**
 * Whether the message was said by `peerId` on `topic`. What is signed are the bytes of a protobuf
 * message with the fields from (1), data (2), seqno (3) and topic (4) after a prefix (the libp2p
 * specification "pubsub", message signing).
 */
export function isGenuine(topic: string, message: SignedMessage): boolean {
  const from = peerIdBytes(message.peerId)
  if (from === undefined || message.sequence < 0n || message.sequence >= 1n << 64n) return false
  const sequence = Buffer.alloc(8)
  sequence.writeBigUInt64BE(message.sequence)
  const signed = Buffer.concat([
    prefix,
    ...field(1, from),
    // An empty field is left out by the encoders in use.
    ...(message.data.length === 0 ? [] : field(2, message.data)),
    ...field(3, sequence),
    ...field(4, Buffer.from(topic)),
  ])
  return isSignedBy(message.peerId, signed, message.signature)
}

function field(number: number, bytes: Uint8Array): Uint8Array[] {
  const head = [(number << 3) | 2]
  let rest = bytes.length
  while (rest > 0x7f) {
    head.push((rest & 0x7f) | 0x80)
    rest >>>= 7
  }
  head.push(rest)
  return [Uint8Array.from(head), bytes]
}
