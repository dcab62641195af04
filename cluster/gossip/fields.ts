/**
 * The form of our binary messages: fields, each a number of one byte, a length and so many bytes.
 * A reader skips fields that it does not know, so that fields can be added and hosts of several
 * versions talk.
 */

/** Fields of a message by their numbers. A whole number or bytes each. */
export type Fields = Map<number, Uint8Array>

const mostFields = 64

/** A field of bytes. */
export function bytesField(number: number, bytes: Uint8Array): Uint8Array {
  return Buffer.concat([Uint8Array.of(number), encodeNumber(bytes.length), bytes])
}

/** A field of a whole number from 0 to 2^53 - 1; what is below or above is taken as these. */
export function numberField(number: number, value: number): Uint8Array {
  return bytesField(number, encodeNumber(value))
}

/** The fields in `bytes`; undefined when it is no row of them. Of two with one number, the last. */
export function readFields(bytes: Uint8Array): Fields | undefined {
  const fields: Fields = new Map()
  let at = 0
  for (let count = 0; at < bytes.length; count++) {
    if (count >= mostFields) return undefined
    const number = bytes[at] ?? 0
    const length = decodeNumber(bytes, at + 1)
    if (length === undefined || length.end + length.value > bytes.length) return undefined
    at = length.end + length.value
    fields.set(number, bytes.subarray(length.end, at))
  }
  return fields
}

/** The whole number in a field; undefined when there is none. */
export function numberIn(field: Uint8Array | undefined): number | undefined {
  if (field === undefined) return undefined
  const decoded = decodeNumber(field, 0)
  return decoded?.end === field.length ? decoded.value : undefined
}

/** Seven bits a byte, the lowest first, the top bit says that more follow (LEB128). */
export function encodeNumber(value: number): Uint8Array {
  let rest = Math.min(Number.MAX_SAFE_INTEGER, Math.max(0, Math.floor(value) || 0))
  const bytes: number[] = []
  while (rest > 0x7f) {
    bytes.push((rest % 128) + 128)
    rest = Math.floor(rest / 128)
  }
  return Uint8Array.from([...bytes, rest])
}

/** The number at a place and where it ends; undefined when there is none that we can hold. */
export function decodeNumber(
  bytes: Uint8Array,
  at: number,
): { value: number; end: number } | undefined {
  let value = 0
  let factor = 1
  for (let index = at; index < at + 8; index++) {
    const byte = bytes[index]
    if (byte === undefined) return undefined
    value += (byte & 0x7f) * factor
    if (value > Number.MAX_SAFE_INTEGER) return undefined
    if (byte < 0x80) return { value, end: index + 1 }
    factor *= 128
  }
  return undefined
}
