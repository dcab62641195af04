import { peerIdBytes, peerIdFromBytes } from '../peers/identity.ts'
import type { SignedMessage } from '../peers/signed-message.ts'
import {
  bytesField,
  decodeNumber,
  encodeNumber,
  numberField,
  numberIn,
  readFields,
} from './fields.ts'

/** A message of some host, handed on with its proof. */
export interface HandedOn {
  message: SignedMessage
  /** How long ago it was heard; the word of who hands it on. */
  ageMs: number
}

const format = 1
/** What the fields of an entry are, by their numbers. A number is never used for something else. */
const field = { peerId: 1, sequence: 2, data: 3, signature: 4, ageMs: 5 } as const

/** As bytes: entries, each after its length. */
export function encodeExchange(entries: readonly HandedOn[]): Uint8Array {
  const parts: Uint8Array[] = [Uint8Array.of(format)]
  for (const { message, ageMs } of entries) {
    const peerId = peerIdBytes(message.peerId)
    if (peerId === undefined) continue
    const sequence = Buffer.alloc(8)
    sequence.writeBigUInt64BE(message.sequence)
    const entry = Buffer.concat([
      bytesField(field.peerId, peerId),
      bytesField(field.sequence, sequence),
      bytesField(field.data, message.data),
      bytesField(field.signature, message.signature),
      numberField(field.ageMs, ageMs),
    ])
    parts.push(encodeNumber(entry.length), entry)
  }
  return Buffer.concat(parts)
}

/**
 * The entries in the bytes; undefined when it makes no sense. Nothing is verified yet.
 * @param most more entries make no sense
 */
export function decodeExchange(bytes: Uint8Array, most: number): HandedOn[] | undefined {
  if (bytes.length === 0 || bytes[0] !== format) return undefined
  const entries: HandedOn[] = []
  for (let at = 1; at < bytes.length; ) {
    const length = decodeNumber(bytes, at)
    if (length === undefined || entries.length >= most) return undefined
    at = length.end + length.value
    if (at > bytes.length) return undefined
    const entry = decodeEntry(bytes.subarray(length.end, at))
    if (entry === undefined) return undefined
    entries.push(entry)
  }
  return entries
}

function decodeEntry(bytes: Uint8Array): HandedOn | undefined {
  const fields = readFields(bytes)
  const peerId = peerIdFromBytes(fields?.get(field.peerId) ?? Buffer.alloc(0))
  const sequence = fields?.get(field.sequence)
  const data = fields?.get(field.data)
  const signature = fields?.get(field.signature)
  if (peerId === undefined || sequence?.length !== 8) return undefined
  if (data === undefined || signature === undefined) return undefined
  return {
    message: { peerId, sequence: Buffer.from(sequence).readBigUInt64BE(), data, signature },
    ageMs: numberIn(fields?.get(field.ageMs)) ?? 0,
  }
}
