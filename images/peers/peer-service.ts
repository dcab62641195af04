import {
  createSecureServer,
  type Http2SecureServer,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import type { AddressInfo, Socket } from 'node:net'
import type { Clock, Timer } from '../../base/clock.ts'
import { MacfleetError } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import type { TransferTls } from '../transfer/transfers.ts'
import { type ChunkMemory, createChunkMemory } from './chunk-memory.ts'
import { createMemberGate, type FindMember, type MemberGate } from './member-gate.ts'
import { readBody } from './read-body.ts'
import { sendBlob } from './send-blob.ts'
import { type SendComponents, sendChunks } from './send-chunks.ts'
import type { ServedImages } from './served-images.ts'
import type { PeerServerInit } from './server-messages.ts'
import { createSlots, type Slots } from './slots.ts'
import { createThrottle, type Throttle } from './throttle.ts'
import { type Asked, decodeRuns, readPath } from './wire.ts'

/** What the service needs. */
export interface PeerServiceComponents {
  clock: Clock
  log: Pick<Log, 'debug'>
  images: ServedImages
  findMember: FindMember
}

/** Gives parts of images to other hosts of the fleet (wire.ts). */
export interface PeerService {
  readonly port: number
  /** For connections that come from now on. */
  setTls(tls: TransferTls): void
  /** Ends the connections of those that are no members any more. */
  membersChanged(): void
  /** Ends all connections. */
  close(): Promise<void>
}

/** What one host may have of us at once. */
interface Share {
  slots: readonly Slots[]
  throttles: readonly Throttle[]
}

interface Context extends PeerServiceComponents {
  limits: Limits
  memory: ChunkMemory
  shareOf(member: string): Share
}

/** Starts it. @throws the system's error when the port is taken */
export async function startPeerService(
  init: PeerServerInit,
  components: PeerServiceComponents,
): Promise<PeerService> {
  const { limits } = init
  const { log } = components
  const memory = createChunkMemory(limits.transferChunksAtOnce)
  const shareOf = createShares(init, components)
  const context: Context = { ...components, limits, memory, shareOf }
  const gates = new Map<ServerHttp2Session, MemberGate>()
  const server = createSecureServer({
    ...secure(init.tls),
    requestCert: true,
    // Said, so that nobody's NODE_TLS_REJECT_UNAUTHORIZED says otherwise.
    rejectUnauthorized: true,
    allowHTTP1: false,
    handshakeTimeout: 10_000,
    settings: { maxConcurrentStreams: limits.transferRequestsAtOnce, maxHeaderListSize: 4_096 },
    maxHeaderListPairs: 32,
    maxSessionMemory: sessionMemoryMegabytes,
  })
  server.maxConnections = limits.transferConnections
  boundSources(server, limits.transferConnectionsPerSource)
  server.on('session', session => {
    const gate = createMemberGate(session, components)
    gates.set(session, gate)
    endWhenIdle(session, limits.transferIdleMs, components.clock)
    session.on('error', error => log.debug({ error: messageOf(error) }, 'a session failed'))
    session.once('close', () => gates.delete(session))
    gate.recheck()
  })
  server.on('stream', (stream, headers) => {
    const gate = stream.session && gates.get(stream.session as ServerHttp2Session)
    stream.on('error', error => log.debug({ error: messageOf(error) }, 'a request failed'))
    if (gate === undefined) stream.destroy()
    else void answer(stream, headers, gate, context)
  })
  server.on('unknownProtocol', socket => socket.destroy())
  server.on('tlsClientError', (_error, socket) => socket.destroy())
  await listen(server, init)
  return {
    port: (server.address() as AddressInfo).port,
    setTls: tls => server.setSecureContext(secure(tls)),
    membersChanged() {
      for (const gate of gates.values()) gate.recheck()
    },
    async close() {
      const closed = new Promise<void>(resolve => server.close(() => resolve()))
      for (const session of gates.keys()) session.destroy()
      await closed
    },
  }
}

/** Ends a session on which nothing was asked for so long. */
function endWhenIdle(session: ServerHttp2Session, idleMs: number, clock: Clock): void {
  let streams = 0
  let timer: Timer
  const wait = (): void => {
    timer = clock.setTimer(idleMs, () => session.destroy())
  }
  wait()
  session.once('close', () => timer.cancel())
  session.on('stream', stream => {
    streams++
    timer.cancel()
    stream.once('close', () => {
      streams--
      if (streams === 0 && !session.destroyed) wait()
    })
  })
}

/** Enough for all that one host may ask for at once. */
const sessionMemoryMegabytes = 64

function secure({ certificate, key, authorities }: TransferTls) {
  return { cert: certificate, key, ca: authorities, minVersion: 'TLSv1.3' as const }
}

async function listen(server: Http2SecureServer, { address, port }: PeerServerInit): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, address, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

/** By member: as many as there are members, each small. */
function createShares(
  { limits, bytesPerSecond, bytesPerSecondPerHost }: PeerServerInit,
  { clock }: PeerServiceComponents,
): (member: string) => Share {
  const shares = new Map<string, Share>()
  const slots = createSlots(limits.transferChunksAtOnce)
  const throttle = createThrottle(bytesPerSecond, clock)
  return member => {
    const found = shares.get(member)
    if (found !== undefined) return found
    const share = {
      slots: [createSlots(limits.transferChunksPerHost), slots],
      throttles: [createThrottle(bytesPerSecondPerHost, clock), throttle],
    }
    shares.set(member, share)
    return share
  }
}

/** Lets no single address have all connections, so that it can't keep the members out. */
function boundSources(server: Http2SecureServer, most: number): void {
  const open = new Map<string, number>()
  server.on('connection', (socket: Socket) => {
    const source = socket.remoteAddress ?? ''
    const count = open.get(source) ?? 0
    if (count >= most) {
      socket.destroy()
      return
    }
    open.set(source, count + 1)
    socket.once('close', () => {
      const left = (open.get(source) ?? 1) - 1
      if (left > 0) open.set(source, left)
      else open.delete(source)
    })
  })
}

/** Answers one request; never throws. */
async function answer(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  gate: MemberGate,
  context: Context,
): Promise<void> {
  const ended = new AbortController()
  stream.once('close', () => ended.abort(new Error('the stream has ended')))
  try {
    const member = await gate.check()
    const asked = readPath(headers[':path'] ?? '')
    const method = asked?.what === 'chunks' ? 'POST' : 'GET'
    if (asked === undefined || headers[':method'] !== method) return refuse(stream, 404)
    const components = { ...context, ...context.shareOf(member), checkMember: () => gate.check() }
    if (asked.what === 'blob') await answerBlob(stream, asked, components, ended.signal)
    else if (asked.what === 'held') await answerHeld(stream, asked, context)
    else await answerChunks(stream, headers, asked, components, ended.signal)
  } catch (error) {
    if (stream.destroyed) return
    context.log.debug({ error: messageOf(error) }, 'a request of another host was not answered')
    if (error instanceof MacfleetError && !stream.headersSent) refuse(stream, error.httpStatus)
    else stream.close(internalError)
  }
}

/** NGHTTP2_INTERNAL_ERROR (RFC 9113, section 7): the answer is not complete. */
const internalError = 2

function refuse(stream: ServerHttp2Stream, status: number): void {
  stream.respond({ ':status': status }, { endStream: true })
}

async function answerBlob(
  stream: ServerHttp2Stream,
  { digest }: Asked,
  components: SendComponents & Context,
  signal: AbortSignal,
): Promise<void> {
  const blob = await components.images.openBlob(digest)
  if (blob === undefined) return refuse(stream, 404)
  try {
    stream.respond({ ':status': 200, 'content-length': blob.lengthBytes })
    await sendBlob(stream, { ...blob, digest }, components, signal)
  } finally {
    await blob.handle.close()
  }
}

async function answerHeld(
  stream: ServerHttp2Stream,
  { digest }: Asked,
  { images }: Context,
): Promise<void> {
  const held = await images.held(digest)
  if (held === undefined) return refuse(stream, 404)
  if (held === 'all') return refuse(stream, 204)
  stream.respond({ ':status': 200, 'content-length': held.length })
  stream.end(held)
}

async function answerChunks(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  { digest }: Asked,
  components: SendComponents & Context,
  signal: AbortSignal,
): Promise<void> {
  const { images, limits } = components
  if (!images.hasLayer(digest)) return refuse(stream, 404)
  const runs = decodeRuns(await readBody(stream, components), limits)
  const zstd = headers['accept-encoding'] === 'zstd'
  stream.respond({ ':status': 200 })
  await sendChunks(stream, { layer: digest, runs, zstd }, components, signal)
}
