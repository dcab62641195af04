import type { Http2Stream } from 'node:http2'
import type { Clock } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'

/** Reads a request whole. @throws tooLarge; badRequest when it does not come */
export async function readBody(
  stream: Http2Stream,
  {
    clock,
    limits,
  }: { clock: Clock; limits: Pick<Limits, 'transferRequestBytes' | 'transferStallMs'> },
): Promise<Buffer> {
  const limitBytes = limits.transferRequestBytes
  const timer = clock.setTimer(limits.transferStallMs, () => stream.destroy())
  try {
    const pieces: Buffer[] = []
    let bytes = 0
    // The iterator of its own would destroy the stream, which is still to be answered.
    for await (const piece of stream.iterator({ destroyOnReturn: false })) {
      bytes += piece.length
      if (bytes > limitBytes) throw failure('tooLarge', { limitBytes })
      pieces.push(piece)
    }
    return Buffer.concat(pieces)
  } finally {
    timer.cancel()
  }
}
