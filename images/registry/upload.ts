import { assert } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { Endpoint, RegistryRequest } from './endpoint.ts'
import type { HttpAnswer } from './transport.ts'
import { lasting, troubleOf } from './trouble.ts'

/** A blob to be sent. */
export interface BlobToUpload {
  digest: string
  sizeBytes: number
  /** Some of its bytes; asked for again where a piece has to be sent anew. */
  read(offsetBytes: number, lengthBytes: number): Promise<Uint8Array>
}

/** What an upload needs besides. */
export interface UploadComponents {
  limits: Limits
  /** Whether the registry has the blob now. */
  isThere(): Promise<boolean>
  /** Told of the bytes that are with the registry so far; fewer than before after a cut. */
  onSent(bytes: number): void
}

/** What an upload has reached: where it goes on, as the registry said. */
interface Session {
  url: URL
  atBytes: number
}

/** What has arrived may be copied and read through before the last request is answered. */
const lastAnswerFactor = 5
const uploadType = { 'content-type': 'application/octet-stream' }

/**
 * Takes a blob over from another repository of the registry.
 * @returns false when the registry wants it to be sent instead
 */
export async function mountBlob(
  endpoint: Endpoint,
  repository: string,
  digest: string,
  from: string,
  signal: AbortSignal,
): Promise<boolean> {
  const path = `/v2/${repository}/blobs/uploads/?${new URLSearchParams({ mount: digest, from })}`
  const scope = `repository:${repository}:pull,push repository:${from}:pull`
  const answer = await endpoint.call({ method: 'POST', path, scope, expect: [201, 202] }, signal)
  await answer.discard()
  return answer.status === 201
}

/**
 * Sends a blob in pieces. After a cut it asks the registry how much has arrived and goes on from
 * there; a registry that has given the upload up gets it from the start.
 * @throws Trouble, or the signal's reason
 */
export async function uploadBlob(
  endpoint: Endpoint,
  repository: string,
  blob: BlobToUpload,
  components: UploadComponents,
  signal: AbortSignal,
): Promise<void> {
  const { limits, isThere } = components
  const upload = createUpload(endpoint, repository, blob, components, signal)
  let session = await upload.begin()
  let furthestBytes = 0
  let failures = 0
  for (;;) {
    try {
      return await upload.send(session)
    } catch (error) {
      signal.throwIfAborted()
      const trouble = troubleOf(error)
      const isGone = trouble.status === 404 || trouble.status === 416
      if (session.atBytes > furthestBytes) failures = 0
      furthestBytes = Math.max(furthestBytes, session.atBytes)
      failures++
      if (failures >= limits.registryTries) throw trouble
      if (!isGone) await endpoint.pause(trouble, failures, signal)
      const reached = isGone ? undefined : await upload.ask(session)
      // An upload that nobody knows any more may have come to its end, and its answer been lost.
      if (reached === undefined && (await isThere())) return
      session = reached ?? (await upload.begin())
    }
  }
}

function createUpload(
  endpoint: Endpoint,
  repository: string,
  blob: BlobToUpload,
  { limits, onSent }: UploadComponents,
  signal: AbortSignal,
) {
  const { digest, sizeBytes } = blob
  const scope = `repository:${repository}:pull,push`
  const call = (request: Omit<RegistryRequest, 'scope'>): Promise<HttpAnswer> =>
    endpoint.call({ ...request, scope }, signal)
  const persist = <Result>(work: () => Promise<Result>): Promise<Result> =>
    endpoint.persist(limits.registryTries, signal, work)
  const nextUrl = async (answer: HttpAnswer): Promise<URL> => {
    await answer.discard()
    return locationOf(answer, endpoint)
  }
  /** The bytes from `atBytes` on, and who hears how far they have come. */
  const piece = async ({ atBytes }: Session): Promise<Pick<RegistryRequest, 'body' | 'onSent'>> => {
    const lengthBytes = Math.min(limits.registryPieceBytes, sizeBytes - atBytes)
    const body = await blob.read(atBytes, lengthBytes)
    assert(body.length === lengthBytes, 'a blob has the bytes that its size says')
    let sentBytes = atBytes
    const tell = (bytes: number): void => {
      sentBytes += bytes
      onSent(sentBytes)
    }
    return { body, onSent: tell }
  }
  const patch = async (session: Session): Promise<void> => {
    const { atBytes } = session
    const sending = await piece(session)
    const endBytes = atBytes + (sending.body?.length ?? 0)
    const headers = { ...uploadType, 'content-range': `${atBytes}-${endBytes - 1}` }
    const request = { method: 'PATCH' as const, path: session.url, headers, expect: [202] }
    const answer = await call({ ...request, ...sending })
    const arrivedBytes = arrived(answer) ?? endBytes
    session.url = await nextUrl(answer)
    if (arrivedBytes <= atBytes || arrivedBytes > endBytes) {
      throw lasting('it says that other bytes arrived than were sent')
    }
    session.atBytes = arrivedBytes
  }
  return {
    async begin(): Promise<Session> {
      const path = `/v2/${repository}/blobs/uploads/`
      const answer = await persist(() => call({ method: 'POST', path, expect: [202] }))
      onSent(0)
      return { url: await nextUrl(answer), atBytes: 0 }
    },
    /** Sends the rest. A small blob goes with the request that ends it. */
    async send(session: Session): Promise<void> {
      const isSmall = session.atBytes === 0 && sizeBytes <= limits.registryPieceBytes
      while (!isSmall && session.atBytes < sizeBytes) await patch(session)
      const isEmpty = !isSmall || sizeBytes === 0
      const sending = isEmpty ? {} : await piece(session)
      const path = new URL(session.url)
      path.searchParams.set('digest', digest)
      const headers = { ...uploadType, ...(isEmpty && { 'content-length': '0' }) }
      const answerMs = limits.registryAnswerMs * lastAnswerFactor
      const request = { method: 'PUT' as const, path, headers, expect: [201, 204], answerMs }
      const answer = await call({ ...request, ...sending })
      await answer.discard()
      const said = answer.header('docker-content-digest')
      if (said !== undefined && said !== digest) throw lasting('it calls a blob by another digest')
      onSent(sizeBytes)
    },
    /** Where it stands after trouble; undefined when the registry does not know it any more. */
    async ask(session: Session): Promise<Session | undefined> {
      try {
        const request = { method: 'GET' as const, path: session.url, expect: [204, 200] }
        const answer = await persist(() => call(request))
        const atBytes = arrived(answer) ?? 0
        await answer.discard()
        const url = answer.header('location') ? locationOf(answer, endpoint) : session.url
        return atBytes <= sizeBytes ? { url, atBytes } : undefined
      } catch (error) {
        signal.throwIfAborted()
        const trouble = troubleOf(error)
        if (trouble.status !== undefined && trouble.status < 500) return undefined
        throw trouble
      }
    },
  }
}

/**
 * Where an upload goes on. Registries behind another server name themselves with the scheme or port
 * that they know; the path counts, and another host is never sent anything.
 */
function locationOf(answer: HttpAnswer, endpoint: Endpoint): URL {
  const location = answer.header('location') ?? ''
  if (location === '' || !URL.canParse(location, endpoint.origin)) {
    throw lasting('it says no place to send a blob to')
  }
  const said = new URL(location, endpoint.origin)
  if (said.hostname !== new URL(endpoint.origin).hostname) {
    throw lasting(`it wants a blob to be sent to ${said.host}`)
  }
  const url = new URL(endpoint.origin)
  url.pathname = said.pathname
  url.search = said.search
  return url
}

/** Bytes that are there, as `Range: 0-LAST` says; `0-0` is how some say that there are none. */
function arrived(answer: HttpAnswer): number | undefined {
  const last = /^(?:bytes=)?0-(\d{1,15})$/.exec(answer.header('range') ?? '')?.[1]
  if (last === undefined) return undefined
  return last === '0' ? 0 : Number(last) + 1
}
