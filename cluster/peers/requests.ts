import type { Stream } from '@libp2p/interface'

/** The first byte of an answer. */
const outcome = { done: 0, failed: 1 }

/** Bytes of the words with which a request fails. */
const longestFailure = 512

/**
 * Reads a stream to its end. Throws when more than `mostBytes` come, or when it is cut off; the
 * caller ends the stream.
 */
export async function readAll(stream: Stream, mostBytes: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  let length = 0
  for await (const chunk of stream) {
    length += chunk.byteLength
    if (length > mostBytes) throw new Error(`more than ${mostBytes} bytes came`)
    parts.push(chunk.subarray())
  }
  return Buffer.concat(parts)
}

/** Sends all and says that no more will come. */
export async function writeAll(
  stream: Stream,
  parts: readonly Uint8Array[],
  signal: AbortSignal,
): Promise<void> {
  for (const part of parts) if (part.length > 0) stream.send(part)
  await stream.close({ signal })
}

/** What answers a request that was done. */
export function answerDone(bytes: Uint8Array): Uint8Array[] {
  return [Uint8Array.of(outcome.done), bytes]
}

/** What answers one that was not. The words are the other side's to read: no secrets. */
export function answerFailed(words: string): Uint8Array[] {
  return [Uint8Array.of(outcome.failed), Buffer.from(words).subarray(0, longestFailure)]
}

/** The answer in the bytes that came; throws the other side's words when it failed. */
export function readAnswer(bytes: Uint8Array): Uint8Array {
  if (bytes[0] === outcome.done) return bytes.subarray(1)
  if (bytes[0] !== outcome.failed) throw new Error('there was no answer')
  // Printable characters only: they end up in logs.
  const words = Buffer.from(bytes.subarray(1, 1 + longestFailure)).toString('utf8')
  throw new Error(words.replace(/[^\x20-\x7e]/g, '?'))
}
