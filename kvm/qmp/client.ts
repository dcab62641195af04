import type { Socket } from 'node:net'
import { Check } from 'typebox/value'
import { type Clock, type Timer, withTimeout } from '../../base/clock.ts'
import { failure, isFailure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import { connectGuestSocket } from '../guest-socket.ts'
import { createLineSplitter } from '../line-splitter.ts'
import { type QmpArguments, type QmpCommandName, type QmpReturns, qmpCommands } from './commands.ts'
import type { QmpEvent } from './events.ts'
import { parseMessage, type QmpMessage } from './messages.ts'

/** Where QEMU is and how patient we are. */
export interface QmpClientInit {
  /** The unix socket of QEMU's `-qmp`. */
  socketPath: string
  /** For the connection, and again for the greeting; 2000 by default. */
  connectTimeoutMs?: number
  /** For a command that names no time of its own; 10000 by default. */
  commandTimeoutMs?: number
  /** Gets every event from the first moment on, in QEMU's order. */
  onEvent?(event: QmpEvent): void
}

/** What a QMP client needs. */
export interface QmpClientComponents {
  clock: Clock
  log: Log
  limits: Limits
}

/** Options of one command. */
export interface ExecuteOptions {
  timeoutMs?: number
}

/** What follows a command's name: its arguments, unless it needs none, then options. */
export type ExecuteParameters<Name extends QmpCommandName> =
  Record<string, never> extends QmpArguments<Name>
    ? [args?: QmpArguments<Name>, options?: ExecuteOptions]
    : [args: QmpArguments<Name>, options?: ExecuteOptions]

/** One connection to one QEMU. It never comes back once it has ended: make a new one. */
export interface QmpClient {
  /** QEMU's version, for example `7.2.22`. */
  readonly version: string
  /** Resolves with the reason when the connection has ended, whoever ended it; never rejects. */
  readonly ended: Promise<Error>
  /**
   * Runs a command. Commands may overtake each other.
   * @throws qemuRefused (its cause is a QmpRefusal), qemuAnswerInvalid, timeout (a late answer is
   * dropped), tooMany, or guestUnreachable when the connection ended before the answer
   */
  execute<Name extends QmpCommandName>(
    name: Name,
    ...parameters: ExecuteParameters<Name>
  ): Promise<QmpReturns<Name>>
  /** Ends the connection; commands under way fail. */
  close(): void
}

/** QEMU's own words when it refused a command. */
export class QmpRefusal extends Error {
  /**
   * QapiErrorClass: GenericError, CommandNotFound, DeviceNotActive, DeviceNotFound, KVMMissingCap.
   */
  readonly errorClass: string

  constructor(errorClass: string, detail: string) {
    super(detail)
    this.name = 'QmpRefusal'
    this.errorClass = errorClass
  }
}

/** Whether `thrown` says that QEMU refused a command, with this error class when one is given. */
export function isRefusal(thrown: unknown, errorClass?: string): boolean {
  if (!isFailure(thrown, 'qemuRefused') || !(thrown.cause instanceof QmpRefusal)) return false
  return errorClass === undefined || thrown.cause.errorClass === errorClass
}

/**
 * Connects to QEMU's monitor and leaves capability negotiation.
 * A second client of the same socket gets no greeting until the first has gone, hence a failure.
 * @throws guestUnreachable, guestSocketRefused
 */
export async function connectQmp(
  init: QmpClientInit,
  components: QmpClientComponents,
): Promise<QmpClient> {
  const timeoutMs = init.connectTimeoutMs ?? 2000
  const socket = await connectGuestSocket(init.socketPath, timeoutMs, components.clock)
  const connection = new Connection(socket, init, components)
  try {
    await connection.negotiate(timeoutMs)
    return connection
  } catch (error) {
    connection.close()
    throw error
  }
}

interface Waiting {
  name: QmpCommandName
  resolve(returned: unknown): void
  reject(error: Error): void
  timer: Timer
}

class Connection implements QmpClient {
  version = 'unknown'
  readonly ended: Promise<Error>
  readonly #socket: Socket
  readonly #init: QmpClientInit
  readonly #components: QmpClientComponents
  readonly #greeted: PromiseWithResolvers<string> = Promise.withResolvers()
  /** A command that timed out stays here until QEMU answers, so that it still counts as waiting. */
  readonly #waiting = new Map<number, Waiting>()
  #nextId = 1
  #reason: Error | undefined
  #end: (reason: Error) => void

  constructor(socket: Socket, init: QmpClientInit, components: QmpClientComponents) {
    this.#socket = socket
    this.#init = init
    this.#components = components
    const { promise, resolve } = Promise.withResolvers<Error>()
    this.ended = promise
    this.#end = resolve
    const splitter = createLineSplitter({
      limitBytes: components.limits.messageLineBytes,
      onLine: line => this.#onLine(line),
      onOversize: () => this.#break('it sent a line that is too long'),
    })
    socket.on('data', bytes => splitter.push(bytes))
    socket.on('error', error => this.#break(messageOf(error)))
    socket.on('close', () => this.#break('the connection was closed'))
  }

  async negotiate(timeoutMs: number): Promise<void> {
    const { clock } = this.#components
    const silent = () => this.#unreachable('it gives no greeting; another client may have it')
    const greeting = Promise.race([this.#greeted.promise, this.ended.then(throwReason)])
    this.version = await withTimeout(clock, timeoutMs, greeting, silent)
    await this.execute('qmp_capabilities')
  }

  execute<Name extends QmpCommandName>(
    name: Name,
    ...[args, options]: ExecuteParameters<Name>
  ): Promise<QmpReturns<Name>> {
    const { clock, limits } = this.#components
    if (this.#reason !== undefined) return Promise.reject(this.#reason)
    const limit = limits.qmpCommandsWaiting
    if (this.#waiting.size >= limit) {
      return Promise.reject(failure('tooMany', { limit, what: 'QMP commands waiting' }))
    }
    const timeoutMs = options?.timeoutMs ?? this.#init.commandTimeoutMs ?? 10_000
    const { promise, resolve, reject } = Promise.withResolvers<QmpReturns<Name>>()
    const timer = clock.setTimer(timeoutMs, () =>
      reject(failure('timeout', { what: `QEMU's answer to ${name}`, timeoutMs })),
    )
    const id = this.#nextId++
    // #onLine has checked against the schema of exactly this command.
    this.#waiting.set(id, { name, resolve: resolve as Waiting['resolve'], reject, timer })
    this.#socket.write(`${JSON.stringify({ execute: name, arguments: args ?? {}, id })}\n`)
    return promise
  }

  close(): void {
    this.#break('we closed the connection')
  }

  #onLine(line: string): void {
    if (this.#reason !== undefined) return
    const message = parseMessage(line)
    if (message === undefined) this.#break('it sent what is no QMP message')
    else if (message.kind === 'greeting') this.#greeted.resolve(message.version)
    else if (message.kind === 'event') this.#onEvent(message.event)
    else this.#settle(message)
  }

  #onEvent(event: QmpEvent): void {
    const { log } = this.#components
    try {
      this.#init.onEvent?.(event)
    } catch (error) {
      log.error({ event: event.event, error: messageOf(error) }, 'a listener of QMP events failed')
    }
  }

  #settle(message: Extract<QmpMessage, { id: number }>): void {
    const waiting = this.#waiting.get(message.id)
    if (waiting === undefined) {
      this.#break('it answered what was not asked')
      return
    }
    const { name } = waiting
    this.#waiting.delete(message.id)
    waiting.timer.cancel()
    if (message.kind === 'refusal') {
      const cause = new QmpRefusal(message.errorClass, message.detail)
      waiting.reject(failure('qemuRefused', { command: name, detail: message.detail }, { cause }))
    } else if (Check(qmpCommands[name].returns, message.returned)) {
      waiting.resolve(message.returned)
    } else {
      waiting.reject(failure('qemuAnswerInvalid', { command: name }))
    }
  }

  #break(detail: string): void {
    if (this.#reason !== undefined) return
    const reason = this.#unreachable(detail)
    this.#reason = reason
    this.#socket.destroy()
    for (const waiting of this.#waiting.values()) {
      waiting.timer.cancel()
      waiting.reject(reason)
    }
    this.#waiting.clear()
    this.#end(reason)
  }

  #unreachable(detail: string): Error {
    return failure('guestUnreachable', { path: this.#init.socketPath, detail })
  }
}

function throwReason(reason: Error): never {
  throw reason
}
