/**
 * Appends a number of 0 to 2^53-1 as an unsigned LEB128 varint, 7 bits a byte, the lowest first.
 */
export function writeVarint(bytes: number[], value: number): void {
  let rest = value
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) | 0x80)
    rest = Math.floor(rest / 0x80)
  }
  bytes.push(rest)
}

/** Reads varints and plain bytes one after another. */
export interface VarintReader {
  /** The next number; only its shortest spelling is taken, so that one value has one form. */
  number(): number
  /** The next `length` bytes; they share the memory of what is read. */
  bytes(length: number): Buffer
  atEnd(): boolean
}

/**
 * Reads from `data`, beginning at `offset`.
 * @param refuse makes the error thrown when the data ends too soon or a number is misspelt
 */
export function createVarintReader(
  data: Buffer,
  offset: number,
  refuse: (detail: string) => Error,
): VarintReader {
  let at = offset
  return {
    number() {
      let value = 0
      let weight = 1
      for (;;) {
        const byte = data[at++]
        if (byte === undefined) throw refuse('it ends too soon')
        value += (byte & 0x7f) * weight
        if (!Number.isSafeInteger(value)) throw refuse('a number is too large')
        if (byte < 0x80) {
          if (byte === 0 && weight > 1) throw refuse('a number has a longer form than it needs')
          return value
        }
        weight *= 0x80
      }
    },
    bytes(length) {
      if (at + length > data.length) throw refuse('it ends too soon')
      at += length
      return data.subarray(at - length, at)
    },
    atEnd: () => at === data.length,
  }
}
