import { Readable } from 'node:stream'
import { createSecureContext, getCACertificates, rootCertificates } from 'node:tls'
import { Agent, type Dispatcher } from 'undici'
import type { Clock } from '../../base/clock.ts'
import type { Limits } from '../../base/limits.ts'
import { guardedLookup, isInward } from './inward.ts'
import { lasting, Trouble, troubleOf } from './trouble.ts'

/** One request. */
export interface HttpRequest {
  method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH'
  url: URL
  headers?: Record<string, string>
  body?: Uint8Array
  /** Told how many bytes of the body are on their way. */
  onSent?: (bytes: number) => void
  /** Milliseconds in which it must be answered; Limits.registryAnswerMs when it is not said. */
  answerMs?: number
}

/** One answer, of which the body has not been read yet. */
export interface HttpAnswer {
  status: number
  header(name: string): string | undefined
  /** To be read once. Throws Trouble when it stalls, drips or is cut. */
  body: AsyncIterable<Buffer>
  /** Gives the body up; must be called when it is not read. */
  discard(): Promise<void>
}

/** Sends requests and gives up those that get no further. */
export interface Transport {
  /** @throws Trouble, or the signal's reason */
  send(request: HttpRequest, signal: AbortSignal): Promise<HttpAnswer>
  close(): Promise<void>
}

/** What a transport is made for. */
export interface TransportInit {
  /** Hosts, with port, that the operator named; others are not reached at inward addresses. */
  hosts: string[]
  /** Trusted beside the system's, PEM. */
  authorities?: string
}

/** What a transport is made of. */
export interface TransportComponents {
  clock: Clock
  limits: Limits
}

const discardedBytes = 16 * 1024
/** Of a body, what may wait to be read: few large pieces cost less than many small ones. */
const bodyBufferBytes = 256 * 1024
const sentPieceBytes = 64 * 1024

/**
 * A pool of HTTP/1.1 connections: several of them carry more than the streams of one HTTP/2
 * connection do. It follows no redirects.
 */
export function createTransport(init: TransportInit, components: TransportComponents): Transport {
  const { limits } = components
  const named = new Set(init.hosts.map(host => new URL(`https://${host}`).hostname))
  const anywhere = [...named].some(host => isInward(host))
  const agents = new Map<string, Agent>()
  const agentFor = (url: URL, free: boolean): Agent => {
    const key = `${url.protocol}${free}`
    const agent = agents.get(key) ?? createAgent(url.protocol === 'https:', free, init, limits)
    agents.set(key, agent)
    return agent
  }
  return {
    async send(request, signal) {
      const { hostname } = request.url
      const free = anywhere || named.has(hostname)
      if (!free && isInward(hostname)) throw lasting(`it points to ${hostname}, inside this host`)
      return exchange(agentFor(request.url, free), request, signal, components)
    },
    async close() {
      await Promise.all([...agents.values()].map(agent => agent.destroy()))
    },
  }
}

/** Authorities take tens of milliseconds to read: they are read when TLS is spoken first. */
function createAgent(tls: boolean, free: boolean, init: TransportInit, limits: Limits): Agent {
  return new Agent({
    connections: limits.registryConnections,
    pipelining: 1,
    allowH2: false,
    headersTimeout: 0,
    bodyTimeout: 0,
    keepAliveTimeout: 10_000,
    keepAliveMaxTimeout: 60_000,
    maxHeaderSize: 16 * 1024,
    maxOrigins: 32,
    connect: {
      timeout: 10_000,
      ...(tls && { secureContext: createSecureContext({ ca: trusted(init.authorities) }) }),
      ...(!free && { lookup: guardedLookup }),
    },
  })
}

/** The system's authorities, the ones that come with Node where there are none, and more. */
function trusted(authorities: string | undefined): string[] {
  const system = new Set(getCACertificates('system'))
  return [...(system.size > 0 ? system : rootCertificates), ...(authorities ? [authorities] : [])]
}

async function exchange(
  agent: Agent,
  request: HttpRequest,
  signal: AbortSignal,
  components: TransportComponents,
): Promise<HttpAnswer> {
  const { clock, limits } = components
  signal.throwIfAborted()
  const stop = new AbortController()
  const onAbort = (): void => stop.abort(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  const end = (): void => signal.removeEventListener('abort', onAbort)
  const { answerMs = limits.registryAnswerMs } = request
  const giveUp = (): void => {
    stop.abort(new Trouble(`it says nothing for ${answerMs} ms`, { passing: true }))
  }
  let timer = clock.setTimer(answerMs, giveUp)
  const onSent = (bytes: number): void => {
    timer.cancel()
    timer = clock.setTimer(answerMs, giveUp)
    request.onSent?.(bytes)
  }
  try {
    const data = await agent.request({
      origin: request.url.origin,
      path: `${request.url.pathname}${request.url.search}`,
      method: request.method,
      headers: headersOf(request),
      body: request.body?.length ? readable(request.body, onSent) : null,
      signal: stop.signal,
      highWaterMark: bodyBufferBytes,
    })
    return answerOf(data, stop, end, components)
  } catch (error) {
    end()
    signal.throwIfAborted()
    throw troubleOf(stop.signal.aborted ? stop.signal.reason : error)
  } finally {
    timer.cancel()
  }
}

function headersOf({ headers, body }: HttpRequest): Record<string, string> {
  return {
    'user-agent': 'macfleet',
    ...headers,
    ...(body && { 'content-length': String(body.length) }),
  }
}

function readable(body: Uint8Array, onSent: (bytes: number) => void): Readable {
  return Readable.from(pieces(body, onSent), { objectMode: false, highWaterMark: sentPieceBytes })
}

/** In pieces, so that it shows how far the other side has come. */
async function* pieces(body: Uint8Array, onSent: (bytes: number) => void) {
  for (let at = 0; at < body.length; at += sentPieceBytes) {
    const piece = body.subarray(at, at + sentPieceBytes)
    yield piece
    onSent(piece.length)
  }
}

function answerOf(
  data: Dispatcher.ResponseData,
  stop: AbortController,
  end: () => void,
  components: TransportComponents,
): HttpAnswer {
  const body = watched(data.body, stop, end, components)
  return {
    status: data.statusCode,
    header(name) {
      const value = data.headers[name]
      return Array.isArray(value) ? value[0] : value
    },
    body,
    async discard() {
      try {
        let bytes = 0
        for await (const piece of body) {
          bytes += piece.length
          if (bytes > discardedBytes) return
        }
      } catch {
        // Given up all the same.
      }
    },
  }
}

/**
 * A body whose sender must keep going: of the time that we spend waiting for it, each
 * `registryProgressMs` must bring `registryProgressBytes`. Time in which nobody reads is not his.
 */
async function* watched(
  body: AsyncIterable<Buffer>,
  stop: AbortController,
  end: () => void,
  components: TransportComponents,
): AsyncGenerator<Buffer> {
  const iterator = body[Symbol.asyncIterator]()
  const watch = watchProgress(components, () => {
    stop.abort(new Trouble('its answer stalls', { passing: true }))
  })
  try {
    for (;;) {
      watch.waits()
      const next = await iterator.next()
      if (next.done) return
      watch.came(next.value.length)
      yield next.value
    }
  } catch (error) {
    if (!stop.signal.aborted) throw troubleOf(error)
    // Ours is Trouble; anything else is the caller's own reason to end it.
    throw stop.signal.reason
  } finally {
    watch.end()
    end()
    await iterator.return?.()
  }
}

/** One timer for many pieces: it looks now and then whether enough has come. */
function watchProgress({ clock, limits }: TransportComponents, tooSlow: () => void) {
  const { registryProgressMs, registryProgressBytes } = limits
  let sinceMs: number | undefined
  let waitedMs = 0
  let bytes = 0
  const look = (): void => {
    const waitingMs = sinceMs === undefined ? 0 : clock.monotonicMs() - sinceMs
    const leftMs = registryProgressMs - waitedMs - waitingMs
    if (leftMs <= 0) tooSlow()
    else timer = clock.setTimer(Math.max(leftMs, registryProgressMs / 8), look)
  }
  let timer = clock.setTimer(registryProgressMs, look)
  return {
    waits(): void {
      sinceMs = clock.monotonicMs()
    },
    came(count: number): void {
      waitedMs += clock.monotonicMs() - (sinceMs ?? 0)
      sinceMs = undefined
      bytes += count
      if (bytes < registryProgressBytes) return
      waitedMs = 0
      bytes = 0
    },
    end: () => timer.cancel(),
  }
}

/**
 * A body as a whole.
 * @throws Trouble when it has more than `limitBytes`
 */
export async function readWhole(
  body: AsyncIterable<Uint8Array>,
  limitBytes: number,
): Promise<Buffer> {
  const parts: Uint8Array[] = []
  let bytes = 0
  for await (const part of body) {
    bytes += part.length
    if (bytes > limitBytes) throw lasting(`its answer has more than ${limitBytes} bytes`)
    parts.push(part)
  }
  return Buffer.concat(parts)
}
