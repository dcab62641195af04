/**
 * The few pieces of DER (ITU-T X.690) that a certificate is made of. Only writing: certificates are
 * read by OpenSSL, never by us.
 */

const tag = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  objectIdentifier: 0x06,
  utf8String: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const

/** A value with a tag of its own: tag, length, content. */
export function tagged(number: number, ...content: readonly Buffer[]): Buffer {
  const body = Buffer.concat(content)
  return Buffer.concat([Buffer.from([number]), lengthOf(body.length), body])
}

function lengthOf(bytes: number): Buffer {
  if (bytes < 0x80) return Buffer.from([bytes])
  const digits = Buffer.alloc(4)
  digits.writeUInt32BE(bytes)
  const significant = digits.subarray(digits.findIndex(digit => digit !== 0))
  return Buffer.concat([Buffer.from([0x80 | significant.length]), significant])
}

/** Parts in an order. */
export const sequence = (...parts: readonly Buffer[]): Buffer => tagged(tag.sequence, ...parts)
/** One part as a set of one. */
export const setOf = (part: Buffer): Buffer => tagged(tag.set, part)
/** True or false. */
export const boolean = (value: boolean): Buffer =>
  tagged(tag.boolean, Buffer.from([value ? 0xff : 0x00]))
/** Text. */
export const utf8String = (text: string): Buffer => tagged(tag.utf8String, Buffer.from(text))
/** Bytes. */
export const octetString = (bytes: Buffer): Buffer => tagged(tag.octetString, bytes)
/** Bits, of which the last `unusedBits` say nothing. */
export const bitString = (bytes: Buffer, unusedBits = 0): Buffer =>
  tagged(tag.bitString, Buffer.from([unusedBits]), bytes)

/** A whole number that is not negative, from its bytes. */
export function integer(bytes: Buffer): Buffer {
  const first = bytes.findIndex(byte => byte !== 0)
  const significant = first < 0 ? Buffer.from([0]) : bytes.subarray(first)
  // A leading bit that is set would make it negative.
  const sign = significant.readUInt8(0) >= 0x80 ? Buffer.from([0]) : Buffer.alloc(0)
  return tagged(tag.integer, sign, significant)
}

/** An object identifier such as 2.5.29.17. */
export function objectIdentifier(text: string): Buffer {
  const [first = 0, second = 0, ...rest] = text.split('.').map(Number)
  const bytes = rest.flatMap(part => {
    const digits = [part & 0x7f]
    for (let left = part >> 7; left > 0; left >>= 7) digits.unshift((left & 0x7f) | 0x80)
    return digits
  })
  return tagged(tag.objectIdentifier, Buffer.from([first * 40 + second, ...bytes]))
}

/** A moment, to the second; RFC 5280 (4.1.2.5) wants two forms, one until 2049 and one after. */
export function time(wallMs: number): Buffer {
  const digits = new Date(wallMs).toISOString().slice(0, 19).replace(/[-:T]/g, '')
  return Number(digits.slice(0, 4)) < 2050
    ? tagged(tag.utcTime, Buffer.from(`${digits.slice(2)}Z`))
    : tagged(tag.generalizedTime, Buffer.from(`${digits}Z`))
}
