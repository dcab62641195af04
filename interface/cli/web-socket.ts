import { connect } from 'node:net'
import type { Duplex } from 'node:stream'
import { createWebSocketStream, WebSocket } from 'ws'
import { failure, messageOf } from '../../base/errors.ts'
import { defaultLimits } from '../../base/limits.ts'
import { type ApiClient, readText, withQuery } from './api-client.ts'
import { connectionError } from './connection-error.ts'
import { statusError } from './status-error.ts'

/** What is opened. */
export interface WebSocketInit {
  path: string
  query?: URLSearchParams
  /** Subprotocols, the best one first. */
  protocols: readonly string[]
}

/** An open WebSocket. */
export interface WebSocketSession {
  /** Each message that came in is one chunk, each chunk that is written goes out as one message. */
  stream: Duplex
  /** The subprotocol that the server chose; empty when it chose none. */
  protocol: string
  /** Resolves when it has ended, with the reason that the server gave, empty when there was none. */
  ended: Promise<string>
}

/**
 * Opens a WebSocket to the daemon (RFC 6455 over its unix socket).
 * @throws StatusError when the daemon refused, daemonNotThere and the like when it did not answer
 */
export function openWebSocket(
  client: ApiClient,
  init: WebSocketInit,
  signal: AbortSignal,
): Promise<WebSocketSession> {
  const query = init.query === undefined ? '' : `?${init.query}`
  const socket = new WebSocket(
    `ws://macfleet${withQuery(init.path, {})}${query}`,
    [...init.protocols],
    {
      createConnection: () => connect(client.socket),
      perMessageDeflate: false,
      maxPayload: defaultLimits.clientAnswerBytes,
      handshakeTimeout: 30_000,
    },
  )
  return new Promise((resolve, reject) => {
    const onAbort = () => socket.terminate()
    signal.addEventListener('abort', onAbort, { once: true })
    socket.on('close', () => signal.removeEventListener('abort', onAbort))
    socket.on('unexpected-response', (_, message) => {
      const request = `GET ${init.path}`
      readText(message, defaultLimits.clientAnswerBytes, request)
        .then(text => reject(statusError(message.statusCode ?? 500, text)))
        .catch(reject)
        .finally(() => socket.terminate())
    })
    socket.on('error', error => {
      reject(signal.aborted ? signal.reason : connectionError(error, client.socket))
    })
    const ended = new Promise<string>(end => {
      socket.on('close', (code, reason) => end(code === 1000 ? '' : closeReason(code, reason)))
    })
    // Made before the first message may come, so that none is missed.
    const stream = createWebSocketStream(socket, { readableObjectMode: true })
    stream.on('error', error => reject(connectionError(error, client.socket)))
    socket.on('open', () => resolve({ stream, protocol: socket.protocol, ended }))
  })
}

/** RFC 6455, section 7.4.1. */
function closeReason(code: number, reason: Buffer): string {
  const text = reason.toString('utf8')
  if (text !== '') return text
  return code === 1005 ? '' : `the connection was closed with code ${code}`
}

/** The error for a session that broke. */
export function sessionError(thrown: unknown): unknown {
  return failure('connectionBroke', { detail: messageOf(thrown) }, { cause: thrown })
}
