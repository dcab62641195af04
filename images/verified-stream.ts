import { createHash } from 'node:crypto'
import { failure } from '../base/errors.ts'

/** What a stream has to be. */
export interface ExpectedBytes {
  /** `sha256:` or `sha512:` and the hash in hex. */
  digest: string
  /** How many there are, where that is known. */
  sizeBytes?: number
  /** Who sends them, for the error. */
  source: string
}

/**
 * Passes bytes on as they come, and throws at their end when they are not what was expected. So
 * whoever takes them must not count them as whole before the stream has ended well.
 * @throws contentDiffers
 */
export async function* verified(
  stream: AsyncIterable<Uint8Array>,
  { digest, sizeBytes, source }: ExpectedBytes,
): AsyncGenerator<Uint8Array> {
  const [algorithm = ''] = digest.split(':')
  const hash = createHash(algorithm)
  let doneBytes = 0
  for await (const part of stream) {
    doneBytes += part.length
    if (sizeBytes !== undefined && doneBytes > sizeBytes) {
      throw failure('contentDiffers', { source, detail: `more than its ${sizeBytes} bytes` })
    }
    hash.update(part)
    yield part
  }
  if (sizeBytes !== undefined && doneBytes < sizeBytes) {
    throw failure('contentDiffers', { source, detail: `${doneBytes} of its ${sizeBytes} bytes` })
  }
  const found = `${algorithm}:${hash.digest('hex')}`
  if (found !== digest) {
    throw failure('contentDiffers', { source, detail: `${found} where ${digest} was asked for` })
  }
}
