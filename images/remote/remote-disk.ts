import { backoffMs } from '../../base/backoff.ts'
import { type Clock, sleep } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import type { StatedFormat } from '../inspect-header.ts'
import { createTransport, type Transport } from '../registry/transport.ts'
import { lasting, Trouble, troubleOf } from '../registry/trouble.ts'
import { verified } from '../verified-stream.ts'
import { readDiskUrl } from './disk-url.ts'
import { type DiskPart, requestPart } from './request-part.ts'

/** Which disk, and how its server is reached. */
export interface RemoteDiskInit {
  /** `https://HOST/PATH[#sha256=HEX]`; see readDiskUrl. */
  url: string
  /** Of the file, where it is said apart from the URL. */
  digest?: string
  /** Hosts that the operator named: they may be this host or its link. */
  hosts?: string[]
  /** Trusted beside the system's authorities, PEM. */
  authorities?: string
}

/** What reading it needs. */
export interface RemoteDiskComponents {
  clock: Clock
  log: Log
  limits: Limits
}

/** A disk whose server has answered. */
export interface RemoteDisk {
  /** Undefined when the server does not say. */
  sizeBytes?: number
  /** What its name says of it; `auto` where that is nothing. */
  format: StatedFormat
  /**
   * Its bytes; what is cut is taken up again. Ends well only if they are what was asked for, so
   * they must not count before. To be read once, to the end, or closed.
   * @throws sourceFailed, contentDiffers, the signal's reason
   */
  stream: AsyncIterable<Uint8Array>
  close(): Promise<void>
}

/** What is known of the file, and how much of it is here. */
interface Work extends RemoteDiskComponents {
  url: URL
  digest: string | undefined
  transport: Transport
  signal: AbortSignal
  doneBytes: number
  first: DiskPart | undefined
  failures: number
}

const firstPauseMs = 250
const mostPauseMs = 15_000

/**
 * Asks for a raw or qcow2 file over HTTPS.
 * @throws badRequest (the URL), sourceFailed, the signal's reason
 */
export async function openRemoteDisk(
  init: RemoteDiskInit,
  components: RemoteDiskComponents,
  signal: AbortSignal,
): Promise<RemoteDisk> {
  const { url, digest } = readDiskUrl(init.url, init.digest)
  const ended = new AbortController()
  const { hosts = [], authorities } = init
  const transport = createTransport({ hosts, ...(authorities && { authorities }) }, components)
  const close = async () => {
    ended.abort(new Error('nobody reads it any more'))
    await transport.close()
  }
  const both = AbortSignal.any([signal, ended.signal])
  const work: Work = {
    ...{ ...components, url, digest, transport, signal: both },
    ...{ doneBytes: 0, first: undefined, failures: 0 },
  }
  try {
    const part = await persist(work, () => request(work))
    work.first = part
    const { sizeBytes } = part
    return {
      ...(sizeBytes !== undefined && { sizeBytes }),
      format: url.pathname.endsWith('.qcow2') ? 'qcow2' : 'auto',
      stream: readDisk(work, part, close),
      close,
    }
  } catch (error) {
    const reason = told(error, work)
    await close()
    throw reason
  }
}

async function* readDisk(
  work: Work,
  part: DiskPart,
  close: () => Promise<void>,
): AsyncGenerator<Uint8Array> {
  const { digest, url } = work
  const whole = readOn(work, part)
  const source = nameOf(url)
  try {
    yield* digest === undefined ? whole : verified(whole, { digest, source })
  } catch (error) {
    throw told(error, work)
  } finally {
    await close()
  }
}

/** Reads to the end, and asks for the rest again where it was cut. */
async function* readOn(work: Work, first: DiskPart): AsyncGenerator<Uint8Array> {
  const { limits, signal } = work
  let part = first
  let sinceBytes = 0
  for (;;) {
    try {
      for await (const bytes of part.body) {
        work.doneBytes += bytes.length
        yield bytes
      }
      const { sizeBytes } = first
      if (sizeBytes === undefined || work.doneBytes === sizeBytes) return
      throw new Trouble(`it ends after ${work.doneBytes} of ${sizeBytes} bytes`, { passing: true })
    } catch (error) {
      signal.throwIfAborted()
      if (work.doneBytes - sinceBytes >= limits.registryProgressBytes) work.failures = 0
      sinceBytes = work.doneBytes
      await pause(work, troubleOf(error))
    }
    part = await persist(work, () => request(work))
  }
}

/** Asks for what is not here yet. */
async function request(work: Work): Promise<DiskPart> {
  const { transport, limits, signal, url, doneBytes, first, digest } = work
  if (first === undefined) return await requestPart({ url, transport, limits }, undefined, signal)
  const { version, sizeBytes } = first
  if (version === undefined && digest === undefined) {
    throw lasting('it was cut, and nothing says whether the rest would be of the same file')
  }
  const known = { fromBytes: doneBytes, version, sizeBytes, isProven: digest !== undefined }
  return await requestPart({ url, transport, limits }, known, signal)
}

async function persist(work: Work, ask: () => Promise<DiskPart>): Promise<DiskPart> {
  for (;;) {
    try {
      return await ask()
    } catch (error) {
      work.signal.throwIfAborted()
      await pause(work, troubleOf(error))
    }
  }
}

/** Waits before the next try; throws the trouble when there should be none. */
async function pause(work: Work, trouble: Trouble): Promise<void> {
  const { clock, log, limits, signal, url } = work
  work.failures++
  const { passing, message, retryAfterMs = 0 } = trouble
  const isOver = work.failures >= limits.registryTries
  if (!passing || isOver || retryAfterMs > limits.registryRetryAfterMs) throw trouble
  const pauseMs = backoffMs({ firstMs: firstPauseMs, mostMs: mostPauseMs }, work.failures)
  const waitMs = Math.max(retryAfterMs, pauseMs)
  const details = { host: url.host, detail: message, failures: work.failures, waitMs }
  log.info(details, 'A disk is asked for again')
  await sleep(clock, waitMs, signal)
}

/** The error that users see; a query may hold a key, and is left out. */
function told(error: unknown, { url, signal }: Work): unknown {
  if (signal.aborted) return signal.reason
  if (!(error instanceof Trouble)) return error
  const values = { source: nameOf(url), detail: error.message }
  return failure('sourceFailed', values, { cause: error })
}

function nameOf(url: URL): string {
  return `${url.origin}${url.pathname}`
}
