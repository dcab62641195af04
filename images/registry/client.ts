import { createHash } from 'node:crypto'
import { failure, isFailure, MacfleetError } from '../../base/errors.ts'
import { mediaTypes } from '../format/media-types.ts'
import { digestOf } from '../layer-index.ts'
import type { RegistryAccess } from '../sources/source.ts'
import { type BlobProgress, type BlobRange, readFrom } from './blob-reader.ts'
import { createEndpoint, type Endpoint, type RegistryComponents } from './endpoint.ts'
import { isDigest, isRegistryHost } from './reference.ts'
import { listTags } from './tags.ts'
import { createTransport, type HttpAnswer, readWhole } from './transport.ts'
import { lasting, type Trouble, troubleOf } from './trouble.ts'
import { type BlobToUpload, mountBlob, uploadBlob } from './upload.ts'

/** A manifest or an index, as it was sent; its digest is of these bytes. */
export interface FetchedManifest {
  digest: string
  /** As the registry says; what is in the bytes counts. */
  mediaType: string
  bytes: Buffer
}

/** Which bytes of a blob. */
export interface ReadOptions {
  offsetBytes?: number
  /** Up to its end when undefined. */
  lengthBytes?: number
  /** Mirrors that have sent some of it are added. */
  servedBy?: Set<string>
  /** Failures of the registry with little between them; Limits.registryTries when undefined. */
  tries?: number
}

/**
 * One registry. Everything throws the signal's reason when it is aborted; `sourceFailed` when the
 * registry does not do its part, `registryDenied` when it does not let us, and `notFound`. It is
 * what a push writes to (push/destination.ts).
 */
export interface RegistryClient {
  /** `registry registry.example.test:5000` */
  readonly name: string
  /** `registry.example.test:5000` */
  readonly host: string
  /** Resolves if there is a registry and it lets us in. */
  ping(signal: AbortSignal): Promise<void>
  /** The digest that a tag stands for now; a digest stands for itself. */
  resolveTag(repository: string, reference: string, signal: AbortSignal): Promise<string>
  /** A manifest by tag or digest; compared with its digest. */
  fetchManifest(
    repository: string,
    reference: string,
    signal: AbortSignal,
  ): Promise<FetchedManifest>
  /** As fetchManifest; undefined where there is none. */
  readManifest(
    repository: string,
    reference: string,
    signal: AbortSignal,
  ): Promise<Buffer | undefined>
  /** @returns the digest of the bytes, by which it is known from now on */
  putManifest(
    repository: string,
    reference: string,
    manifest: Pick<FetchedManifest, 'mediaType' | 'bytes'>,
    signal: AbortSignal,
  ): Promise<string>
  /** Bytes of a blob, as the registry says; undefined when the repository does not have it. */
  blobBytes(repository: string, digest: string, signal: AbortSignal): Promise<number | undefined>
  /** A small blob as a whole, compared with its digest. */
  readBlob(
    repository: string,
    digest: string,
    limitBytes: number,
    signal: AbortSignal,
  ): Promise<Buffer>
  /** A blob's bytes, not compared with its digest. Goes on where it was cut. */
  streamBlob(
    repository: string,
    digest: string,
    options: ReadOptions,
    signal: AbortSignal,
  ): AsyncIterable<Buffer>
  /** Takes a blob over from another repository. @returns whether the registry did it */
  mountBlob(repository: string, digest: string, from: string, signal: AbortSignal): Promise<boolean>
  /**
   * Sends a blob in pieces; takes up again where it was cut.
   * @param onSent told of the bytes that are with the registry so far
   */
  uploadBlob(
    repository: string,
    blob: BlobToUpload,
    signal: AbortSignal,
    onSent?: (bytes: number) => void,
  ): Promise<void>
  tags(repository: string, signal: AbortSignal): Promise<string[]>
  /** Asks these mirrors for nothing any more: what they sent was not what it should be. */
  distrust(mirrors: ReadonlySet<string>): void
  close(): Promise<void>
}

const acceptedManifests = [
  mediaTypes.manifest,
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
].join(', ')

/**
 * Tries before another is asked where there are mirrors, and how long a mirror that failed is left
 * alone.
 */
const mirrorTries = 2
const mirrorRestMs = 30_000

/**
 * Speaks the distribution protocol (OCI, version 1.1). Mirrors are asked first, for what is named
 * by a digest; a tag is the registry's to explain, and a mirror's only while the registry can not
 * be reached. A mirror is written `host[:port]`, or `http://host[:port]` when it has no TLS; it is
 * never shown the registry's credentials. Redirects are followed for blobs only.
 */
export function createRegistryClient(
  access: RegistryAccess,
  components: RegistryComponents,
): RegistryClient {
  const { clock, limits, log } = components
  const { registry, mirrors, transport } = open(access, components)
  const name = `registry ${access.host}`
  const restUntilMs = new Map<Endpoint, number>()
  const usableMirrors = (): Endpoint[] =>
    mirrors.filter(mirror => clock.monotonicMs() >= (restUntilMs.get(mirror) ?? 0))
  const rest = (mirror: Endpoint, error: unknown): void => {
    const { message, status } = troubleOf(error)
    log.warn({ mirror: mirror.host, detail: message }, 'A mirror did not help')
    // That one lacks something says nothing of the rest.
    if (status !== 404) restUntilMs.set(mirror, clock.monotonicMs() + mirrorRestMs)
  }
  /** Trouble as an error for users. */
  const failed = (error: unknown, what: string, signal: AbortSignal): unknown =>
    signal.aborted ? signal.reason : errorOf(error, access.host, name, what)
  const at = async <Result>(
    what: string,
    signal: AbortSignal,
    work: () => Promise<Result>,
  ): Promise<Result> => {
    try {
      return await registry.persist(limits.registryTries, signal, work)
    } catch (error) {
      throw failed(error, what, signal)
    }
  }
  const blobBytes = async (repository: string, digest: string, signal: AbortSignal) => {
    const path = `/v2/${repository}/blobs/${digest}`
    const request = { method: 'HEAD' as const, path, scope: pull(repository), expect: [200, 404] }
    const answer = await registry.callFollowing(request, signal)
    await answer.discard()
    if (answer.status === 404) return undefined
    const bytes = Number(answer.header('content-length') ?? Number.NaN)
    if (!Number.isSafeInteger(bytes)) throw lasting('it does not say how large a blob is')
    return bytes
  }

  /** From the mirrors that help, and else from the registry. */
  async function* read(
    range: BlobRange,
    servedBy: Set<string>,
    signal: AbortSignal,
    tries = limits.registryTries,
  ) {
    const { offsetBytes, lengthBytes } = range
    const endBytes = lengthBytes === undefined ? {} : { endBytes: offsetBytes + lengthBytes }
    const progress: BlobProgress = { atBytes: offsetBytes, ...endBytes }
    for (const mirror of usableMirrors()) {
      const options = { tries: mirrorTries, limits }
      try {
        for await (const piece of readFrom(mirror, range, progress, options, signal)) {
          servedBy.add(mirror.host)
          yield piece
        }
        return
      } catch (error) {
        signal.throwIfAborted()
        // Where the blob ends is not a mirror's to say.
        if (lengthBytes === undefined) delete progress.endBytes
        rest(mirror, error)
      }
    }
    try {
      yield* readFrom(registry, range, progress, { tries, limits }, signal)
    } catch (error) {
      throw failed(error, `blob ${range.digest}`, signal)
    }
  }

  const readManifest = async (
    endpoint: Endpoint,
    repository: string,
    reference: string,
    signal: AbortSignal,
  ): Promise<FetchedManifest> => {
    const answer = await endpoint.call(
      {
        method: 'GET',
        path: `/v2/${repository}/manifests/${reference}`,
        scope: pull(repository),
        headers: { accept: acceptedManifests },
        expect: [200],
      },
      signal,
    )
    const bytes = await readWhole(answer.body, limits.registryManifestBytes)
    const digest = digestOfBytes(bytes)
    const said = isDigest(reference) ? reference : digestHeader(answer)
    if (said !== undefined && said !== digest) {
      throw lasting(`the manifest that it calls ${said} has the digest ${digest}`)
    }
    return { digest, mediaType: mediaTypeOf(answer), bytes }
  }

  const resolveTag = async (repository: string, reference: string, signal: AbortSignal) => {
    if (isDigest(reference)) return reference
    const answer = await registry.call(
      {
        method: 'HEAD',
        path: `/v2/${repository}/manifests/${reference}`,
        scope: pull(repository),
        headers: { accept: acceptedManifests },
        expect: [200],
      },
      signal,
    )
    await answer.discard()
    // Not all registries say it: then the manifest itself is asked for.
    return (
      digestHeader(answer) ?? (await readManifest(registry, repository, reference, signal)).digest
    )
  }

  /** A tag is a digest once the registry has said which; if it says nothing, mirrors may. */
  const manifest = async (repository: string, reference: string, signal: AbortSignal) => {
    let wanted = reference
    let unreachable: Trouble | undefined
    if (mirrors.length > 0) {
      try {
        wanted = await registry.persist(mirrorTries, signal, () =>
          resolveTag(repository, reference, signal),
        )
      } catch (error) {
        signal.throwIfAborted()
        unreachable = troubleOf(error)
        if (!unreachable.passing) throw unreachable
        log.warn({ registry: access.host, repository }, 'A tag is asked of mirrors alone')
      }
    }
    for (const mirror of usableMirrors()) {
      try {
        return await readManifest(mirror, repository, wanted, signal)
      } catch (error) {
        signal.throwIfAborted()
        rest(mirror, error)
      }
    }
    if (unreachable !== undefined) throw unreachable
    return readManifest(registry, repository, wanted, signal)
  }

  return {
    name,
    host: access.host,
    async ping(signal) {
      const request = { method: 'GET' as const, path: '/v2/', scope: '', expect: [200] }
      await at('itself', signal, async () => (await registry.call(request, signal)).discard())
    },
    resolveTag: (repository, reference, signal) =>
      at(`manifest ${repository}:${reference}`, signal, () =>
        resolveTag(repository, reference, signal),
      ),
    fetchManifest,
    async readManifest(repository, reference, signal) {
      try {
        return (await fetchManifest(repository, reference, signal)).bytes
      } catch (error) {
        if (isFailure(error, 'notFound')) return undefined
        throw error
      }
    },
    putManifest: (repository, reference, { mediaType, bytes }, signal) =>
      at(`manifest ${repository}:${reference}`, signal, async () => {
        const answer = await registry.call(
          {
            method: 'PUT',
            path: `/v2/${repository}/manifests/${reference}`,
            scope: `${pull(repository)},push`,
            headers: { 'content-type': mediaType },
            body: bytes,
            expect: [201],
          },
          signal,
        )
        await answer.discard()
        const digest = digestOfBytes(bytes)
        const said = digestHeader(answer) ?? digest
        if (said !== digest) throw lasting(`it calls the manifest ${digest} by ${said}`)
        return digest
      }),
    blobBytes: (repository, digest, signal) =>
      at(`blob ${digest}`, signal, () => blobBytes(repository, digest, signal)),
    readBlob,
    streamBlob(repository, digest, options, signal) {
      const { offsetBytes = 0, lengthBytes, servedBy = new Set(), tries } = options
      const length = lengthBytes === undefined ? {} : { lengthBytes }
      return read({ repository, digest, offsetBytes, ...length }, servedBy, signal, tries)
    },
    mountBlob: (repository, digest, from, signal) =>
      at(`blob ${digest}`, signal, () => mountBlob(registry, repository, digest, from, signal)),
    async uploadBlob(repository, blob, signal, onSent = () => {}) {
      const { digest } = blob
      const isThere = async () => (await blobBytes(repository, digest, signal)) !== undefined
      try {
        await uploadBlob(registry, repository, blob, { limits, isThere, onSent }, signal)
      } catch (error) {
        throw failed(error, `blob ${digest}`, signal)
      }
    },
    tags: (repository, signal) =>
      at(`repository ${repository}`, signal, () => listTags(registry, repository, limits, signal)),
    distrust,
    close: () => transport.close(),
  }

  function fetchManifest(repository: string, reference: string, signal: AbortSignal) {
    return at(`manifest ${repository}:${reference}`, signal, () =>
      manifest(repository, reference, signal),
    )
  }

  async function readBlob(
    repository: string,
    digest: string,
    limitBytes: number,
    signal: AbortSignal,
  ): Promise<Buffer> {
    const range = { repository, digest, offsetBytes: 0 }
    for (;;) {
      const servedBy = new Set<string>()
      try {
        const bytes = await readWhole(read(range, servedBy, signal), limitBytes)
        if (digestOfBytes(bytes) !== digest) throw lasting(`blob ${digest} has another digest`)
        return bytes
      } catch (error) {
        signal.throwIfAborted()
        if (servedBy.size === 0) throw failed(error, `blob ${digest}`, signal)
        distrust(servedBy)
      }
    }
  }

  function distrust(hosts: ReadonlySet<string>): void {
    for (const mirror of mirrors.filter(({ host }) => hosts.has(host))) {
      restUntilMs.set(mirror, Number.POSITIVE_INFINITY)
      log.warn({ mirror: mirror.host }, 'A mirror sent wrong bytes and is not asked any more')
    }
  }
}

/** The hosts that are asked, and what carries the requests. */
function open(access: RegistryAccess, components: RegistryComponents) {
  const { host, plainHttp = false, credentials, authorities } = access
  const named = (access.mirrors ?? []).map(text => ({
    host: text.replace(/^https?:\/\//, ''),
    plainHttp: text.startsWith('http://'),
  }))
  for (const { host: one } of [access, ...named]) {
    if (isRegistryHost(one)) continue
    throw failure('referenceInvalid', { reference: one.slice(0, 100), detail: 'it is not a host' })
  }
  const hosts = [...(access.outwardOnly ? [] : [host]), ...named.map(mirror => mirror.host)]
  const transport = createTransport({ hosts, ...(authorities && { authorities }) }, components)
  const create = (init: Parameters<typeof createEndpoint>[0]): Endpoint =>
    createEndpoint(init, transport, components)
  return {
    transport,
    registry: create({ host, plainHttp, ...(credentials && { credentials }) }),
    mirrors: named.map(create),
  }
}

function pull(repository: string): string {
  return `repository:${repository}:pull`
}

function digestOfBytes(bytes: Uint8Array): string {
  return digestOf(createHash('sha256').update(bytes).digest())
}

/** What the registry calls it, when it does so by a digest of our kind. */
function digestHeader(answer: HttpAnswer): string | undefined {
  const said = answer.header('docker-content-digest')
  return isDigest(said) ? said : undefined
}

function mediaTypeOf(answer: HttpAnswer): string {
  return (answer.header('content-type') ?? '').split(';')[0]?.trim().slice(0, 255) ?? ''
}

function errorOf(error: unknown, host: string, name: string, what: string): MacfleetError {
  if (error instanceof MacfleetError) return error
  const { status, message, cause } = troubleOf(error)
  const extras = { cause }
  if (status === 404) return failure('notFound', { resource: name, name: what }, extras)
  if (status === 401 || status === 403) {
    return failure('registryDenied', { registry: host, what, detail: message }, extras)
  }
  return failure('sourceFailed', { source: name, detail: message }, extras)
}
