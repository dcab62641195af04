import type { Limits } from '../../base/limits.ts'
import type { HttpAnswer, Transport } from '../registry/transport.ts'
import { lasting, Trouble } from '../registry/trouble.ts'

/** What a server sends of a file: from where it was asked for, up to its end. */
export interface DiskPart {
  /** Of the whole file; undefined when the server does not say. */
  sizeBytes: number | undefined
  /** What names this version of the file, for `if-range`; undefined when nothing does. */
  version: string | undefined
  /** Throws Trouble when it stalls, drips or is cut. */
  body: AsyncIterable<Uint8Array>
}

/** What is known of a file of which a part is here. */
export interface KnownPart {
  fromBytes: number
  sizeBytes: number | undefined
  version: string | undefined
  /** A digest will say whether it was one file. */
  isProven: boolean
}

/** Where a file is. */
export interface PartInit {
  url: URL
  transport: Transport
  limits: Pick<Limits, 'diskRedirects' | 'diskBytes'>
}

const redirects = [301, 302, 303, 307, 308]

/**
 * Asks a server for a file, or for the rest of one, and follows where it sends us.
 * @throws Trouble, or the signal's reason
 */
export async function requestPart(
  { url, transport, limits }: PartInit,
  known: KnownPart | undefined,
  signal: AbortSignal,
): Promise<DiskPart> {
  const headers = {
    'accept-encoding': 'identity',
    ...(known && {
      range: `bytes=${known.fromBytes}-`,
      ...(known.version !== undefined && { 'if-range': known.version }),
    }),
  }
  let at = url
  let answer = await transport.send({ method: 'GET', url: at, headers }, signal)
  for (let followed = 0; redirects.includes(answer.status); followed++) {
    await answer.discard()
    if (followed === limits.diskRedirects) throw lasting('it sends us on too many times')
    at = redirectOf(answer, at)
    answer = await transport.send({ method: 'GET', url: at, headers }, signal)
  }
  try {
    return readAnswer(answer, known, limits.diskBytes)
  } catch (error) {
    await answer.discard()
    throw error
  }
}

/** Only to https, whatever it was before: where a file lies is no reason to be heard by others. */
function redirectOf(answer: HttpAnswer, from: URL): URL {
  const location = answer.header('location') ?? ''
  if (location === '' || !URL.canParse(location, from.href)) {
    throw lasting('it sends us on to nowhere')
  }
  const url = new URL(location, from)
  const isSame = from.protocol === 'http:' && url.origin === from.origin
  if (url.protocol !== 'https:' && !isSame) throw lasting('it sends us on to what is not https')
  if (url.username !== '' || url.password !== '') throw lasting('it sends us on with credentials')
  return url
}

function readAnswer(answer: HttpAnswer, known: KnownPart | undefined, diskBytes: number): DiskPart {
  const { status, body } = answer
  if (status !== 200 && (status !== 206 || known === undefined)) throw refusalOf(answer)
  if ((answer.header('content-encoding') ?? 'identity') !== 'identity') {
    throw lasting('it packs what it sends')
  }
  const version = versionOf(answer)
  const isSame = version !== undefined && version === known?.version
  if (status === 206 && known !== undefined) return readRest(answer, known)
  const sizeBytes = numberIn(answer.header('content-length'))
  if (sizeBytes !== undefined && sizeBytes > diskBytes) {
    throw lasting(`its ${sizeBytes} bytes are more than the limit of ${diskBytes}`)
  }
  if (known === undefined) return { sizeBytes, version, body }
  const isOther = sizeBytes !== known.sizeBytes || !(isSame || known.isProven)
  if (isOther) throw lasting('the file there is another one now')
  return { sizeBytes, version, body: skip(body, known.fromBytes) }
}

function readRest(answer: HttpAnswer, known: KnownPart): DiskPart {
  const said = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/.exec(
    answer.header('content-range') ?? '',
  )
  const [first, total] = [Number(said?.[1]), Number(said?.[3])]
  if (first !== known.fromBytes) throw lasting('it sends another part than was asked for')
  const isOther = known.sizeBytes !== undefined && total !== known.sizeBytes
  if (isOther) throw lasting('the file there is another one now')
  const { sizeBytes, version } = known
  return { sizeBytes, version, body: answer.body }
}

/** A strong tag, or a date; a weak tag says nothing of single bytes (RFC 9110, section 13.1.5). */
function versionOf(answer: HttpAnswer): string | undefined {
  const tag = answer.header('etag')
  if (tag !== undefined && /^"[\x21\x23-\x7e]*"$/.test(tag)) return tag
  return tag === undefined ? answer.header('last-modified') : undefined
}

function refusalOf(answer: HttpAnswer): Trouble {
  const { status } = answer
  const passing = status === 408 || status === 429 || status >= 500
  const seconds = passing ? numberIn(answer.header('retry-after')) : undefined
  return new Trouble(`it answers ${status}`, {
    ...{ passing, status },
    ...(seconds !== undefined && { retryAfterMs: seconds * 1000 }),
  })
}

function numberIn(header: string | undefined): number | undefined {
  return header !== undefined && /^\d{1,16}$/.test(header) ? Number(header) : undefined
}

/** A server that knows no ranges sends all of it again. */
async function* skip(
  body: AsyncIterable<Uint8Array>,
  unwantedBytes: number,
): AsyncGenerator<Uint8Array> {
  let rest = unwantedBytes
  for await (const part of body) {
    const unwanted = Math.min(rest, part.length)
    rest -= unwanted
    if (unwanted < part.length) yield part.subarray(unwanted)
  }
}
