import type { Socket } from 'node:net'
import { type Clock, withTimeout } from '../base/clock.ts'
import { failure, isFailure } from '../base/errors.ts'
import type { Limits } from '../base/limits.ts'
import { type Log, messageOf } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import { connectGuestSocket } from './guest-socket.ts'
import { createLineSplitter } from './line-splitter.ts'

/** Where the agent's port is and how long its silence is borne. */
export interface AgentChannelInit {
  /** The unix socket of the virtio-serial port `org.qemu.guest_agent.0`. */
  socketPath: string
  /** For the connection and the greeting, before a request counts as sent; 2000 by default. */
  syncTimeoutMs?: number
}

/** What talking to an agent needs. */
export interface AgentChannelComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
}

/** How one request is made. */
export interface RequestOptions {
  /** For the answer, once the agent has proved that it is there. */
  timeoutMs: number
  /** Forgets the request when aborted; what the agent has begun goes on. */
  signal?: AbortSignal
  /**
   * The command is done when nothing was heard in time: `guest-shutdown` answers only when it
   * fails.
   */
  silenceIsSuccess?: boolean
}

/**
 * One request after another to the program behind a guest's agent port, which may be absent, slow,
 * restarted in the middle, or hostile. The port has no connections: what the agent answers to a
 * request long given up arrives before the answer that we want. So every request begins with
 * guest-sync-delimited and a random number (QEMU guest agent protocol reference).
 */
export interface AgentChannel {
  /**
   * Sends a command and returns what the agent returned, unchecked.
   * @throws agentUnavailable when nobody answers, agentRefused with the agent's words, timeout,
   * agentAnswerTooLarge, tooMany when too many requests wait, or the signal's reason
   */
  request(command: string, args: object, options: RequestOptions): Promise<unknown>
  /** Fails what is waiting and disconnects. */
  close(): void
}

/** Marks where an answer to guest-sync-delimited begins; it is in no UTF-8 text. */
const delimiter = 0xff

/** Bytes that a guest may send between two requests before we hang up until the next one. */
const idleBytesMax = 64 * 1024

/** Makes a channel; it connects with the first request and again after every failure. */
export function createAgentChannel(
  init: AgentChannelInit,
  components: AgentChannelComponents,
): AgentChannel {
  return new Channel(init, components)
}

type SignalledOptions = RequestOptions & { signal: AbortSignal }

type Answer = { returned: unknown } | { refusal: string }

interface Connection {
  socket: Socket
  /** Whether everything up to the next delimiter is thrown away unseen. */
  skipping: boolean
  onLine: (line: string) => void
  /** Called at a delimiter when nothing was being skipped. */
  onDelimiter: () => void
  /** Rejects when the connection is of no more use. */
  broken: Promise<never>
}

class Channel implements AgentChannel {
  readonly #init: AgentChannelInit
  readonly #components: AgentChannelComponents
  #connection: Connection | undefined
  #last: Promise<unknown> = Promise.resolve()
  #waiting = 0
  #busy = false
  #idleBytes = 0
  readonly #closing = new AbortController()

  constructor(init: AgentChannelInit, components: AgentChannelComponents) {
    this.#init = init
    this.#components = components
  }

  async request(command: string, args: object, options: RequestOptions): Promise<unknown> {
    const limit = this.#components.limits.agentRequestsWaiting
    if (this.#waiting >= limit) {
      throw failure('tooMany', { limit, what: 'requests to the guest agent waiting' })
    }
    const signals = [this.#closing.signal, ...(options.signal ? [options.signal] : [])]
    const signal = AbortSignal.any(signals)
    const { promise: aborted, reject } = Promise.withResolvers<never>()
    const onAbort = () => reject(signal.reason)
    signal.addEventListener('abort', onAbort)
    this.#waiting++
    const turn = this.#last.then(() => this.#serve(command, args, { ...options, signal }, aborted))
    this.#last = turn.catch(() => {})
    try {
      signal.throwIfAborted()
      return await Promise.race([turn, aborted])
    } finally {
      signal.removeEventListener('abort', onAbort)
      this.#waiting--
    }
  }

  close(): void {
    this.#closing.abort(failure('agentUnavailable', { detail: 'we let go of the guest' }))
    this.#disconnect()
  }

  async #serve(
    command: string,
    args: object,
    options: SignalledOptions,
    aborted: Promise<never>,
  ): Promise<unknown> {
    options.signal.throwIfAborted()
    this.#busy = true
    try {
      return await Promise.race([this.#exchange(command, args, options), aborted])
    } catch (error) {
      // Whatever state the stream was left in, the next request starts with a fresh one.
      if (!isFailure(error, 'agentRefused')) this.#disconnect()
      throw error
    } finally {
      this.#busy = false
      this.#idleBytes = 0
    }
  }

  async #exchange(command: string, args: object, options: SignalledOptions): Promise<unknown> {
    const connection = await this.#synchronize(options.signal)
    const { clock, limits } = this.#components
    const { timeoutMs, silenceIsSuccess } = options
    const answer = nextAnswer(connection)
    send(connection, { execute: command, arguments: args })
    const late = () => failure('timeout', { what: `the guest agent's ${command}`, timeoutMs })
    try {
      const settled = await withTimeout(clock, timeoutMs, answer, late)
      if ('refusal' in settled) {
        throw failure('agentRefused', { command, detail: settled.refusal })
      }
      return settled.returned
    } catch (error) {
      if (isFailure(error, 'agentRefused')) throw error
      if (silenceIsSuccess) {
        this.#disconnect()
        return {}
      }
      if (error instanceof OversizeError) {
        const limitBytes = limits.messageLineBytes
        throw failure('agentAnswerTooLarge', { command, limitBytes }, { cause: error })
      }
      throw error
    } finally {
      connection.skipping = true
    }
  }

  /** Makes sure that the next line we read is the answer to the next line we write. */
  async #synchronize(signal: AbortSignal): Promise<Connection> {
    const { clock, random } = this.#components
    const timeoutMs = this.#init.syncTimeoutMs ?? 2000
    const late = () => failure('agentUnavailable', { detail: `no answer within ${timeoutMs} ms` })
    try {
      const connection = this.#connection ?? (await this.#connect(timeoutMs, signal))
      this.#connection = connection
      const id = random.bytes(6).readUIntBE(0, 6)
      const found = findSync(connection, id)
      // The delimiter before the request ends whatever half request the agent may still hold.
      connection.socket.write(Buffer.of(delimiter))
      send(connection, { execute: 'guest-sync-delimited', arguments: { id } })
      await withTimeout(clock, timeoutMs, found, late)
      return connection
    } catch (error) {
      if (isFailure(error, 'agentUnavailable')) throw error
      const gone = isFailure(error, 'guestUnreachable')
      const detail = gone ? 'its QEMU is not there' : messageOf(error)
      throw failure('agentUnavailable', { detail }, { cause: error })
    }
  }

  async #connect(timeoutMs: number, signal: AbortSignal): Promise<Connection> {
    const { clock, limits } = this.#components
    const socket = await connectGuestSocket(this.#init.socketPath, timeoutMs, clock)
    if (signal.aborted) {
      socket.destroy()
      throw signal.reason
    }
    const { promise: broken, reject } = Promise.withResolvers<never>()
    broken.catch(() => {})
    const ignore = () => {}
    const handlers = { onLine: ignore, onDelimiter: ignore }
    const connection: Connection = { socket, broken, skipping: true, ...handlers }
    const splitter = createLineSplitter({
      limitBytes: limits.messageLineBytes,
      onLine: line => connection.onLine(line),
      onOversize: () => {
        reject(new OversizeError())
        socket.destroy()
      },
    })
    socket.on('data', bytes => {
      if (!this.#busy) this.#idleBytes += bytes.length
      // A guest that talks without being asked would keep the daemon busy for nothing.
      if (this.#idleBytes > idleBytesMax) socket.destroy()
      let from = 0
      for (let at = bytes.indexOf(delimiter); at >= 0; at = bytes.indexOf(delimiter, from)) {
        if (!connection.skipping) {
          splitter.push(bytes.subarray(from, at))
          connection.onDelimiter()
        }
        connection.skipping = false
        splitter.reset()
        from = at + 1
      }
      if (!connection.skipping) splitter.push(bytes.subarray(from))
    })
    socket.on('close', () => {
      reject(failure('agentUnavailable', { detail: 'the connection was closed' }))
      if (this.#connection === connection) this.#connection = undefined
    })
    return connection
  }

  #disconnect(): void {
    this.#connection?.socket.destroy()
    this.#connection = undefined
  }
}

class OversizeError extends Error {
  constructor() {
    super('it sent a line that is too long')
    this.name = 'OversizeError'
  }
}

function send(connection: Connection, message: object): void {
  connection.socket.write(`${JSON.stringify(message)}\n`)
}

/** Skips everything until the line after a delimiter that returns exactly our number. */
function findSync(connection: Connection, id: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  connection.skipping = true
  connection.onDelimiter = () => {}
  connection.onLine = line => {
    const answer = parseAnswer(line)
    if (answer !== undefined && 'returned' in answer && answer.returned === id) resolve()
    else connection.skipping = true
  }
  return Promise.race([promise, connection.broken])
}

function nextAnswer(connection: Connection): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  const strange = () => reject(failure('agentUnavailable', { detail: 'it sent garbage' }))
  connection.skipping = false
  connection.onDelimiter = strange
  connection.onLine = line => {
    const answer = parseAnswer(line)
    if (answer === undefined) strange()
    else resolve(answer)
  }
  promise.catch(() => {})
  return Promise.race([promise, connection.broken])
}

function parseAnswer(line: string): Answer | undefined {
  try {
    const message: unknown = JSON.parse(line)
    if (typeof message !== 'object' || message === null) return undefined
    if ('return' in message) return { returned: message.return }
    if (!('error' in message)) return undefined
    const { error } = message
    if (typeof error !== 'object' || error === null || !('desc' in error)) return undefined
    return { refusal: printable(String(error.desc)) }
  } catch {
    return undefined
  }
}

/** Text from a guest as we repeat it to people: one line, no control characters, not long. */
export function printable(text: string): string {
  return text
    .slice(0, 1000)
    .replaceAll(/\p{C}+/gu, ' ')
    .trim()
}
