/**
 * Makes what a guest wrote to its console safe and readable on a terminal: line ends, tabs and
 * colours stay, all else that moves the cursor, clears the screen, retitles the window or makes the
 * terminal answer is dropped. Control sequences: ECMA-48; strings that end with ST or BEL: xterm's
 * ctlseqs.
 */
export interface PlainFilter {
  /** The part of `bytes` that may be shown; a sequence that is not whole yet is kept for the next. */
  push(bytes: Uint8Array): Buffer
}

const escapeByte = 0x1b
const bell = 0x07
const colourEnd = 0x6d

/** Bytes of one sequence that are kept at most; a longer one is no colour. */
const mostSequenceBytes = 64

type State = 'text' | 'escape' | 'control' | 'string' | 'stringEscape'

/** Makes the filter of one stream. */
export function createPlainFilter(): PlainFilter {
  let state: State = 'text'
  let sequence: number[] = []

  /** Takes one byte; the bytes that it lets through. */
  const take = (byte: number): readonly number[] => {
    if (state === 'text') {
      if (byte !== escapeByte) return isShown(byte) ? [byte] : []
      state = 'escape'
      return []
    }
    if (state === 'escape') {
      // CSI, then the strings: DCS, SOS, OSC, PM, APC. Any other sequence is two bytes long, or three
      // when the second is an intermediate one, whose final byte is then dropped as a control is.
      if (byte === 0x5b) state = 'control'
      else if ([0x50, 0x58, 0x5d, 0x5e, 0x5f].includes(byte)) state = 'string'
      else if (byte < 0x20 || byte > 0x2f) state = 'text'
      sequence = []
      return []
    }
    if (state === 'control') {
      sequence.push(byte)
      const ends = byte >= 0x40 && byte <= 0x7e
      if (!ends && sequence.length < mostSequenceBytes && byte >= 0x20) return []
      state = 'text'
      return byte === colourEnd ? [escapeByte, 0x5b, ...sequence] : []
    }
    if (state === 'stringEscape') {
      state = byte === 0x5c ? 'text' : 'string'
      return []
    }
    // A string that a guest never ends must not swallow the log: it ends with the line, too.
    if (byte === bell || byte === 0x0a) state = 'text'
    else if (byte === escapeByte) state = 'stringEscape'
    return byte === 0x0a ? [byte] : []
  }

  return {
    push(bytes) {
      const shown: number[] = []
      for (const byte of bytes) shown.push(...take(byte))
      return Buffer.from(shown)
    },
  }
}

/** Line feed, carriage return, tab, and everything that is no control byte (UTF-8 passes). */
function isShown(byte: number): boolean {
  return byte === 0x0a || byte === 0x0d || byte === 0x09 || (byte >= 0x20 && byte !== 0x7f)
}
