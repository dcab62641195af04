/** How lines are cut out of a stream of bytes. */
export interface LineSplitterInit {
  /** A longer line ends the splitting. */
  limitBytes: number
  /** Gets each line, decoded as UTF-8, without its end (LF or CRLF). */
  onLine(line: string): void
  /** Called once, when a line is longer than the limit; whatever comes later is dropped. */
  onOversize(): void
}

/** Cuts a stream into lines and holds no more than one line of it. */
export interface LineSplitter {
  /** Takes the next bytes of the stream, in pieces of any size. */
  push(bytes: Uint8Array): void
  /** Forgets the line begun. */
  reset(): void
}

const lineFeed = 0x0a

/** A buffer that grew beyond this is given back after its line. */
const keptBytes = 4096

/** Makes a splitter for a peer that is not trusted to end its lines, nor to send them in one piece. */
export function createLineSplitter(init: LineSplitterInit): LineSplitter {
  // One growing buffer and no list of pieces: a peer that sends byte by byte costs bytes, not objects.
  let held = Buffer.alloc(0)
  let heldBytes = 0
  let broken = false

  const hold = (part: Uint8Array): void => {
    const neededBytes = heldBytes + part.length
    if (neededBytes > init.limitBytes) {
      broken = true
      held = Buffer.alloc(0)
      heldBytes = 0
      init.onOversize()
      return
    }
    if (neededBytes > held.length) {
      const larger = Buffer.alloc(Math.max(neededBytes, 2 * held.length))
      held.copy(larger, 0, 0, heldBytes)
      held = larger
    }
    held.set(part, heldBytes)
    heldBytes = neededBytes
  }

  const take = (): string => {
    const line = held.toString('utf8', 0, heldBytes)
    heldBytes = 0
    if (held.length > keptBytes) held = Buffer.alloc(0)
    return line.endsWith('\r') ? line.slice(0, -1) : line
  }

  return {
    push(bytes) {
      let from = 0
      while (!broken) {
        const end = bytes.indexOf(lineFeed, from)
        hold(bytes.subarray(from, end < 0 ? bytes.length : end))
        if (end < 0 || broken) return
        from = end + 1
        init.onLine(take())
      }
    },
    reset() {
      heldBytes = 0
    },
  }
}
