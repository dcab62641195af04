/** Keeps the end of a stream. */
export interface Tail {
  push(bytes: Uint8Array): void
  /** What is kept, oldest byte first. */
  bytes(): Buffer
}

/**
 * Makes a tail of at most `limitBytes`; it takes that memory when the first byte comes, not
 * before.
 */
export function createTail(limitBytes: number): Tail {
  let ring: Buffer | undefined
  let at = 0
  let heldBytes = 0
  return {
    push(bytes) {
      ring ??= Buffer.allocUnsafeSlow(limitBytes)
      const kept = bytes.subarray(Math.max(0, bytes.length - limitBytes))
      const first = kept.subarray(0, limitBytes - at)
      ring.set(first, at)
      ring.set(kept.subarray(first.length), 0)
      at = (at + kept.length) % limitBytes
      heldBytes = Math.min(limitBytes, heldBytes + kept.length)
    },
    bytes() {
      if (ring === undefined) return Buffer.alloc(0)
      if (heldBytes < limitBytes) return Buffer.from(ring.subarray(0, heldBytes))
      return Buffer.concat([ring.subarray(at), ring.subarray(0, at)])
    },
  }
}

/**
 * Bytes of unknown origin as text for a record: control characters other than tab and line feed
 * become `?`, so that nothing plays with the reader's terminal and JSON stays short.
 */
export function readableText(bytes: Uint8Array): string {
  const text = Buffer.from(bytes).toString('utf8').replaceAll('\r\n', '\n')
  return Array.from(text, character => (isControl(character) ? '?' : character)).join('')
}

function isControl(character: string): boolean {
  const code = character.codePointAt(0) ?? 0
  return (code < 0x20 && character !== '\t' && character !== '\n') || (code >= 0x7f && code < 0xa0)
}
