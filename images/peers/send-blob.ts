import { createHash } from 'node:crypto'
import type { ServerHttp2Stream } from 'node:http2'
import { type SendComponents, write } from './send-chunks.ts'
import type { ServedBlob } from './served-images.ts'

const pieceBytes = 1024 * 1024

/**
 * Sends a file and ends the stream. The last piece goes only when all of it was compared with the
 * digest, so what is rotten is never had whole.
 * @throws when it is not what it should be, or the stream ends before
 */
export async function sendBlob(
  stream: ServerHttp2Stream,
  blob: ServedBlob & { digest: string },
  components: SendComponents,
  signal: AbortSignal,
): Promise<void> {
  const { handle, lengthBytes } = blob
  const hash = createHash('sha256')
  for (let at = 0; at < lengthBytes; ) {
    await components.checkMember()
    const length = Math.min(pieceBytes, lengthBytes - at)
    const piece = Buffer.allocUnsafeSlow(length)
    const { bytesRead } = await handle.read(piece, 0, length, at)
    if (bytesRead === 0) throw rotten(blob, 'it has become shorter')
    const part = piece.subarray(0, bytesRead)
    hash.update(part)
    at += bytesRead
    if (at >= lengthBytes && `sha256:${hash.digest('hex')}` !== blob.digest) {
      throw rotten(blob, 'its bytes are not those that its digest names')
    }
    for (const throttle of components.throttles) await throttle.take(bytesRead, signal)
    await write(stream, [part], components)
  }
  stream.end()
}

function rotten(blob: ServedBlob, detail: string): Error {
  blob.isRotten(detail)
  return new Error(detail)
}
