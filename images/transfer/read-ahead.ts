/** Guesses what a guest reads next. */
export interface ReadAhead {
  /**
   * Told of each read.
   * @returns bytes after it that are worth having before they are asked for; 0 when it looks like
   * chance
   */
  onRead(offsetBytes: number, lengthBytes: number): number
}

interface Stream {
  nextBytes: number
  /** What is guessed: so many bytes, up to here. 0: nothing yet. */
  aheadBytes: number
  guessedToBytes: number
}

const MiB = 1024 * 1024
/** Readers at once that are told apart; who has not read for longest is forgotten. */
const mostStreams = 16
/** A reader may leave out this much, or come this much too early: queues do not keep order. */
const slackBytes = 256 * 1024
const firstAheadBytes = MiB / 2
const mostAheadBytes = 16 * MiB

/**
 * Each sequential reader is guessed ahead, and twice as far each time that it has read half of what
 * was guessed. Sooner would be for nothing mostly: few files are large.
 */
export function createReadAhead(): ReadAhead {
  const streams: Stream[] = []
  return {
    onRead(offsetBytes, lengthBytes) {
      const endBytes = offsetBytes + lengthBytes
      const at = streams.findIndex(
        ({ nextBytes }) => Math.abs(offsetBytes - nextBytes) <= slackBytes,
      )
      const [found] = at < 0 ? [] : streams.splice(at, 1)
      const stream = found ?? { nextBytes: endBytes, aheadBytes: 0, guessedToBytes: 0 }
      streams.push(stream)
      if (streams.length > mostStreams) streams.shift()
      if (found === undefined) return 0
      stream.nextBytes = Math.max(endBytes, stream.nextBytes)
      const { aheadBytes, guessedToBytes } = stream
      if (guessedToBytes - endBytes <= aheadBytes / 2) {
        stream.aheadBytes = Math.min(mostAheadBytes, Math.max(firstAheadBytes, aheadBytes * 2))
        stream.guessedToBytes = endBytes + stream.aheadBytes
      }
      return Math.max(0, stream.guessedToBytes - endBytes)
    },
  }
}
