/** Bit n & 7 of byte n >> 3. */
export function hasBit(bits: Uint8Array, number: number): boolean {
  return ((bits[number >> 3] ?? 0) & (1 << (number & 7))) !== 0
}

/** Sets or clears a bit. */
export function putBit(bits: Uint8Array, number: number, on: boolean): void {
  const mask = 1 << (number & 7)
  const byte = bits[number >> 3] ?? 0
  bits[number >> 3] = on ? byte | mask : byte & ~mask
}

/** A map of `count` bits, none set. */
export function emptyBits(count: number): Uint8Array {
  return new Uint8Array(Math.ceil(count / 8))
}

/** A map of `count` bits, all set. */
export function allBits(count: number): Uint8Array {
  const bits = emptyBits(count).fill(0xff)
  if (count % 8 !== 0) bits[bits.length - 1] = (1 << (count % 8)) - 1
  return bits
}

/**
 * Calls with each number whose bit is set in both, from a place on and round again, until told to
 * stop by `false`. Empty bytes cost next to nothing.
 */
export function forEachCommon(
  one: Uint8Array,
  other: Uint8Array,
  fromByte: number,
  visit: (number: number) => boolean,
): void {
  const length = Math.min(one.length, other.length)
  for (let step = 0; step < length; step++) {
    const at = fromByte + step < length ? fromByte + step : fromByte + step - length
    const byte = (one[at] ?? 0) & (other[at] ?? 0)
    if (byte === 0) continue
    for (let bit = 0; bit < 8; bit++) {
      if ((byte & (1 << bit)) !== 0 && !visit(at * 8 + bit)) return
    }
  }
}
