import { connect, type Socket } from 'node:net'
import { type BackoffInit, backoffMs } from '../../base/backoff.ts'
import type { Clock, Timer } from '../../base/clock.ts'
import { errorTable } from '../../base/error-table.ts'
import { type ErrorCode, failure, MacfleetError } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { createLineSplitter } from '../../kvm/line-splitter.ts'
import { type ExitEvent, type GuardianMethod, isFields } from './protocol.ts'

/** Where a connection goes. */
export interface ConnectionInit {
  socketPath: string
  /** The wait between tries to connect. */
  reconnect: BackoffInit
  limits: Limits
  onConnected(): void
  onLost(): void
  onEvent(event: ExitEvent): void
}

/** One connection to the guardian after the other, and the requests on it. */
export interface Connection {
  /**
   * Sends a request, once there is a connection. When `signal` is aborted the answer is not
   * awaited any more.
   * @throws guardianUnavailable when the connection is lost in between: it may have been carried
   * out
   */
  request(method: GuardianMethod, parameters: object, signal: AbortSignal): Promise<unknown>
  close(): void
}

interface Waiting {
  line: string
  sent: boolean
  resolve(result: unknown): void
  reject(error: Error): void
}

/** Keeps a connection until it is closed. */
export function maintainConnection(init: ConnectionInit, clock: Clock): Connection {
  const waiting = new Map<number, Waiting>()
  let nextId = 1
  let failures = 0
  let socket: Socket | undefined
  let connected = false
  let closed = false
  let timer: Timer | undefined

  const unavailable = (detail: string) =>
    failure('guardianUnavailable', { path: init.socketPath, detail })

  const send = (one: Waiting): void => {
    one.sent = true
    socket?.write(one.line)
  }

  const onConnect = (): void => {
    connected = true
    failures = 0
    init.onConnected()
    for (const one of waiting.values()) if (!one.sent) send(one)
  }

  const onClose = (): void => {
    const wasConnected = connected
    connected = false
    for (const [id, one] of waiting) {
      // What was not sent yet may still be answered on the next connection.
      if (!one.sent && !closed) continue
      waiting.delete(id)
      one.reject(unavailable(closed ? 'the client was closed' : 'the connection was lost'))
    }
    if (wasConnected) init.onLost()
    if (!closed) timer = clock.setTimer(backoffMs(init.reconnect, ++failures), open)
  }

  const open = (): void => {
    const opened = connect(init.socketPath)
    socket = opened
    const splitter = createLineSplitter({
      limitBytes: init.limits.messageLineBytes,
      onLine: line => takeMessage(line, opened, waiting, init),
      onOversize: () => opened.destroy(),
    })
    opened.on('connect', onConnect)
    opened.on('data', bytes => splitter.push(bytes))
    opened.on('error', () => opened.destroy())
    opened.on('close', onClose)
  }
  open()

  return {
    request: (method, parameters, signal) =>
      new Promise((resolve, reject) => {
        if (closed) return reject(unavailable('the client was closed'))
        const id = nextId++
        const line = `${JSON.stringify({ id, method, parameters })}\n`
        const one = { line, sent: false, resolve, reject }
        waiting.set(id, one)
        signal.addEventListener('abort', () => waiting.delete(id))
        if (connected) send(one)
      }),
    close() {
      closed = true
      timer?.cancel()
      // Between two connections there is no socket whose end would be told.
      if (socket?.destroyed !== false) onClose()
      socket?.destroy()
    },
  }
}

/**
 * An answer goes to who waits for it, an event to the listener; anything else is no guardian's.
 */
function takeMessage(
  line: string,
  socket: Socket,
  waiting: Map<number, Waiting>,
  init: ConnectionInit,
): void {
  const message = parse(line)
  if (message === undefined) {
    socket.destroy()
    return
  }
  if (isExitEvent(message)) {
    init.onEvent(message)
    return
  }
  const id = Number(message['id'])
  const one = waiting.get(id)
  waiting.delete(id)
  if (isFields(message['error'])) one?.reject(readError(message['error'], init.socketPath))
  else one?.resolve(message['result'])
}

function parse(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return isFields(value) ? value : undefined
  } catch {
    return undefined
  }
}

function isExitEvent(message: object): message is ExitEvent {
  return 'event' in message && message.event === 'exit'
}

function readError(error: Record<string, unknown>, path: string): Error {
  const { code, values, message } = error
  if (typeof code === 'string' && isErrorCode(code) && isFields(values)) {
    const texts = Object.entries(values).map(([name, value]) => [name, String(value)] as const)
    return new MacfleetError(code, Object.fromEntries(texts))
  }
  return failure('guardianUnavailable', { path, detail: String(message) })
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorTable, code)
}
