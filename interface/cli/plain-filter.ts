/**
 * Makes what a guest wrote to its console safe and readable on a terminal: line ends, tabs and
 * colours stay, all else that moves the cursor, clears the screen, retitles the window or makes the
 * terminal answer is dropped. Control sequences: ECMA-48; strings that end with ST or BEL: xterm's
 * ctlseqs. What is no UTF-8 becomes U+FFFD, because a terminal may take single bytes for controls.
 */
export interface PlainFilter {
  /** The part of `bytes` that may be shown; a sequence that is not whole yet is kept for the next. */
  push(bytes: Uint8Array): Buffer
}

const escapeCode = 0x1b
const bell = 0x07
const lineFeed = 0x0a
/** Digits and what divides them, then m. With other characters, such as `>`, it is no colour. */
const colour = /^[\d;:]*m$/

/** Characters of one sequence that are kept at most; a longer one is no colour. */
const mostSequenceLength = 64

type State = 'text' | 'escape' | 'control' | 'string' | 'stringEscape'

/** Makes the filter of one stream. */
export function createPlainFilter(): PlainFilter {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  let state: State = 'text'
  let sequence = ''

  /** Takes one character, by its code point; what it lets through. */
  const take = (code: number): string => {
    if (state === 'text') {
      if (code !== escapeCode) return isShown(code) ? String.fromCodePoint(code) : ''
      state = 'escape'
      return ''
    }
    if (state === 'escape') {
      // CSI, then the strings: DCS, SOS, OSC, PM, APC. Any other sequence is two bytes long, or three
      // when the second is an intermediate one, whose final byte is then dropped as a control is.
      if (code === 0x5b) state = 'control'
      else if ([0x50, 0x58, 0x5d, 0x5e, 0x5f].includes(code)) state = 'string'
      else if (code < 0x20 || code > 0x2f) state = 'text'
      sequence = ''
      return ''
    }
    if (state === 'control') {
      sequence += String.fromCodePoint(code)
      const ends = code >= 0x40 && code <= 0x7e
      if (!ends && sequence.length < mostSequenceLength && code >= 0x20) return ''
      state = 'text'
      return colour.test(sequence) ? `\u001b[${sequence}` : ''
    }
    if (state === 'stringEscape') {
      state = code === 0x5c ? 'text' : 'string'
      return ''
    }
    // A string that a guest never ends must not swallow the log: it ends with the line, too.
    if (code === bell || code === lineFeed) state = 'text'
    else if (code === escapeCode) state = 'stringEscape'
    return code === lineFeed ? '\n' : ''
  }
  /** The controls from 0x80 on are ESC and a letter in one character (ECMA-48, 5.3). */
  const takeEither = (code: number): string =>
    code >= 0x80 && code <= 0x9f ? take(escapeCode) + take(code - 0x40) : take(code)

  return {
    push(bytes) {
      let shown = ''
      for (const character of decoder.decode(bytes, { stream: true })) {
        shown += takeEither(character.codePointAt(0) ?? 0)
      }
      return Buffer.from(shown)
    },
  }
}

/** Line feed, carriage return, tab, and everything that is no control character. */
function isShown(code: number): boolean {
  return code === lineFeed || code === 0x0d || code === 0x09 || (code >= 0x20 && code !== 0x7f)
}
