import { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import type { RawData, WebSocket } from 'ws'
import type { Clock } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { ApiContext, ApiRequest } from './context.ts'

/** A peer that answers no ping within this is gone. */
const pingMs = 30_000
/** RFC 6455, section 5.5: a close frame holds at most 125 bytes, two of them the code. */
const reasonBytes = 123

/** Close codes of RFC 6455, section 7.4.1. */
export const closeCodes = { normal: 1000, goingAway: 1001, failed: 1011 } as const

/** The bytes of a message, however ws hands them over. */
export function bytesOf(data: RawData): Buffer {
  if (Array.isArray(data)) return Buffer.concat(data)
  return Buffer.isBuffer(data) ? data : Buffer.from(data)
}

/**
 * Resolves when a message has left this process, or the peer is gone: await it for back-pressure.
 */
export function sendMessage(socket: WebSocket, bytes: Buffer): Promise<void> {
  if (socket.readyState !== socket.OPEN) return Promise.resolve()
  return new Promise(resolve => socket.send(bytes, { binary: true }, () => resolve()))
}

/** Closes with as much of the reason as fits. */
export function closeSocket(socket: WebSocket, code: number, reason = ''): void {
  if (socket.readyState !== socket.OPEN) return
  let text = reason
  while (Buffer.byteLength(text) > reasonBytes) text = text.slice(0, -1)
  socket.close(code, text)
}

/** What a client sends, as a stream; the client waits while nobody reads. */
export interface Inbox {
  readonly stream: Readable
  push(bytes: Buffer): void
  end(): void
}

/** Makes the inbox of a socket. */
export function createInbox(socket: WebSocket): Inbox {
  let ended = false
  const stream = new Readable({ read: () => socket.resume() })
  // Whoever reads it learns of the end; an inbox destroyed by its reader is no error of ours.
  stream.on('error', () => {})
  return {
    stream,
    push(bytes) {
      if (!ended && !stream.destroyed && bytes.length > 0 && !stream.push(bytes)) socket.pause()
    },
    end() {
      if (!ended && !stream.destroyed) stream.push(null)
      ended = true
      socket.resume()
    },
  }
}

/** Pings the peer and drops it when it stops answering; returns how to stop. */
export function keepAlive(socket: WebSocket, clock: Clock): () => void {
  let answered = true
  const onPong = () => {
    answered = true
  }
  socket.on('pong', onPong)
  const tick = () => {
    // A paused socket can't hear the answer: it is alive as long as its reader is busy.
    if (!answered && !socket.isPaused) return socket.terminate()
    answered = false
    socket.ping()
    timer = clock.setTimer(pingMs, tick)
  }
  let timer = clock.setTimer(pingMs, tick)
  return () => timer.cancel()
}

/** Aborted when the connection that shall become a WebSocket is gone, or the server closes. */
export function connectionSignal(context: ApiContext, request: ApiRequest): AbortSignal {
  const leaving = new AbortController()
  const { socket } = request.raw
  if (socket.destroyed) leaving.abort()
  else socket.once('close', () => leaving.abort())
  return AbortSignal.any([leaving.signal, context.closing])
}

/** Answers a plain GET of a path that speaks WebSocket. */
export async function refusePlain(_: ApiRequest, reply: FastifyReply): Promise<never> {
  reply.header('connection', 'upgrade').header('upgrade', 'websocket')
  throw failure('badRequest', { detail: 'this path speaks WebSocket (RFC 6455) only' })
}
