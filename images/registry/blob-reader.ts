import type { Limits } from '../../base/limits.ts'
import type { Endpoint } from './endpoint.ts'
import type { HttpAnswer } from './transport.ts'
import { lasting, Trouble, troubleOf } from './trouble.ts'

/** Which bytes of which blob. */
export interface BlobRange {
  repository: string
  digest: string
  offsetBytes: number
  /** Undefined: up to its end. */
  lengthBytes?: number
}

/** How a read gets on; whoever takes it up elsewhere goes on from `atBytes`. */
export interface BlobProgress {
  /** Offset in the blob of the next byte. */
  atBytes: number
  /** Offset of the first byte that is not wanted, once it is known. */
  endBytes?: number
}

/**
 * Reads from `progress.atBytes` on, taking the read up again where it was cut. Gives up after
 * `tries` failures with little between them.
 * @throws Trouble, or the signal's reason
 */
export async function* readFrom(
  endpoint: Endpoint,
  range: BlobRange,
  progress: BlobProgress,
  options: { tries: number; limits: Limits },
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  const { tries, limits } = options
  let failures = 0
  let sinceBytes = progress.atBytes
  for (;;) {
    try {
      for await (const piece of readOnce(endpoint, range, progress, signal)) {
        progress.atBytes += piece.length
        yield piece
      }
      return
    } catch (error) {
      signal.throwIfAborted()
      if (progress.atBytes - sinceBytes >= limits.registryProgressBytes) failures = 0
      sinceBytes = progress.atBytes
      failures++
      const trouble = troubleOf(error)
      if (failures >= tries) throw trouble
      await endpoint.pause(trouble, failures, signal)
    }
  }
}

async function* readOnce(
  endpoint: Endpoint,
  { repository, digest }: BlobRange,
  progress: BlobProgress,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  const { atBytes, endBytes } = progress
  if (endBytes !== undefined && atBytes >= endBytes) return
  const last = endBytes === undefined ? '' : endBytes - 1
  const isPart = atBytes > 0 || endBytes !== undefined
  const answer = await endpoint.callFollowing(
    {
      method: 'GET',
      path: `/v2/${repository}/blobs/${digest}`,
      scope: `repository:${repository}:pull`,
      headers: { ...(isPart && { range: `bytes=${atBytes}-${last}` }) },
      expect: [200, 206],
    },
    signal,
  )
  const { skipBytes, limitBytes } = await part(answer, progress)
  let skippedBytes = 0
  let sentBytes = 0
  // Leaving the loop closes the connection: what else is sent is not waited for.
  for await (const piece of answer.body) {
    const unwanted = Math.min(piece.length, skipBytes - skippedBytes)
    skippedBytes += unwanted
    const wanted = piece.subarray(unwanted, unwanted + limitBytes - sentBytes)
    sentBytes += wanted.length
    if (wanted.length > 0) yield wanted
    if (sentBytes === limitBytes) break
  }
  if (limitBytes !== Number.POSITIVE_INFINITY && sentBytes < limitBytes) {
    throw new Trouble('a blob ends early', { passing: true })
  }
}

/** What of an answer's body is wanted. A registry that knows no ranges sends all. */
async function part(
  answer: HttpAnswer,
  progress: BlobProgress,
): Promise<{ skipBytes: number; limitBytes: number }> {
  const { atBytes } = progress
  const refuse = async (detail: string): Promise<never> => {
    await answer.discard()
    throw lasting(detail)
  }
  const encoding = answer.header('content-encoding') ?? 'identity'
  if (encoding !== 'identity') await refuse('it sends a blob in another encoding')
  if (answer.status === 200) {
    const size = Number(answer.header('content-length') ?? Number.NaN)
    if (Number.isSafeInteger(size)) progress.endBytes ??= size
    const { endBytes = Number.POSITIVE_INFINITY } = progress
    return { skipBytes: atBytes, limitBytes: endBytes - atBytes }
  }
  const said = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/
  const match = said.exec(answer.header('content-range') ?? '')
  const [first, last, total] = [match?.[1], match?.[2], match?.[3]].map(Number)
  if (first !== atBytes || last === undefined || last < atBytes) {
    return refuse('it sends other bytes of a blob than were asked for')
  }
  if (total !== undefined && Number.isSafeInteger(total)) progress.endBytes ??= total
  const { endBytes = Number.POSITIVE_INFINITY } = progress
  // It may send less than was asked for: then the rest is asked for again.
  return { skipBytes: 0, limitBytes: endBytes - atBytes }
}
