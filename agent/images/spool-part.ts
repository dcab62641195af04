import { createWriteStream } from 'node:fs'
import { rm } from 'node:fs/promises'
import { type Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { failure } from '../../base/errors.ts'

/**
 * Writes a small part of an image, which waits for the rest, to a file; nothing of it stays when it
 * does not come whole.
 * @throws tooLarge, the signal's reason
 */
export async function spoolPart(
  path: string,
  bytes: Readable,
  limitBytes: number,
  signal: AbortSignal,
): Promise<void> {
  let seenBytes = 0
  const bound = new Transform({
    transform(chunk: Buffer, _, done) {
      seenBytes += chunk.length
      if (seenBytes > limitBytes) done(failure('tooLarge', { limitBytes }))
      else done(null, chunk)
    },
  })
  try {
    await pipeline(bytes, bound, createWriteStream(path, { mode: 0o600 }), { signal })
  } catch (error) {
    await rm(path, { force: true })
    throw error
  }
}
