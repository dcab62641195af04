import { stat } from 'node:fs/promises'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { BackoffInit } from '../base/backoff.ts'
import type { Clock } from '../base/clock.ts'
import { failure } from '../base/errors.ts'
import type { Limits } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import { readLogTail } from './console-log.ts'
import { ConsoleSession } from './console-session.ts'
import type { GuestFolder } from './guest-folder.ts'
import { connectGuestSocket } from './guest-socket.ts'
import { keepConnected } from './reconnect.ts'

/** Which guest's console. */
export interface ConsoleInit {
  folder: Pick<GuestFolder, 'console' | 'consoleLog'>
  /**
   * Called once, with the wall time in milliseconds, when the guest's first byte is seen. Do not
   * give it for an adopted guest, whose first byte is long past.
   */
  onFirstByte?(wallMs: number): void
  /**
   * A wall time in milliseconds before QEMU was started: what its log has got since then was the
   * guest's first byte, too. A guest may speak before we have a connection, and says nothing more.
   */
  startedAtMs?: number
  /** Between tries to connect; 20 ms up to 1 s by default. */
  backoff?: BackoffInit
}

/** What a console needs. */
export interface ConsoleComponents {
  clock: Clock
  log: Log
  limits: Limits
}

/**
 * A guest's serial console. QEMU serves one client; we are it, for as long as the guest runs, and
 * hand everything on to any number of sessions. QEMU writes the log by itself, whether we are here
 * or not; the guardian keeps it small.
 */
export interface Console {
  /** Whether QEMU's end is there. */
  connected(): boolean
  /** How many sessions are open. */
  sessions(): number
  /**
   * A new session: reading gives the end of the log and then what the guest says, without a gap;
   * writing is typing. Typing into a guest that is not there is lost, as on a cable without an end.
   * A session that does not read is ended with `consoleTooSlow`; the guest never waits for one.
   * @throws tooMany, consoleUnavailable after `close()`
   */
  open(): Promise<Duplex>
  /** Ends every session and lets go of QEMU. */
  close(): Promise<void>
}

/** Takes hold of a guest's console, now or when it appears; it is there until closed. */
export function attachConsole(init: ConsoleInit, components: ConsoleComponents): Console {
  return new ConsoleHub(init, components)
}

class ConsoleHub implements Console {
  readonly #init: ConsoleInit
  readonly #components: ConsoleComponents
  readonly #closing = new AbortController()
  readonly #finished: Promise<void>
  readonly #sessions = new Set<ConsoleSession>()
  #socket: Socket | undefined
  #firstByteSeen = false

  constructor(init: ConsoleInit, components: ConsoleComponents) {
    this.#init = init
    this.#components = components
    const onLost = () => {}
    const { signal } = this.#closing
    this.#finished = keepConnected(
      { serve: () => this.#serveConnection(), onLost, backoff: init.backoff, signal },
      components.clock,
    )
  }

  connected(): boolean {
    return this.#socket !== undefined
  }

  sessions(): number {
    return this.#sessions.size
  }

  async open(): Promise<Duplex> {
    const { limits } = this.#components
    if (this.#closing.signal.aborted) throw this.#gone()
    if (this.#sessions.size >= limits.sessionsPerMachine) {
      throw failure('tooMany', { limit: limits.sessionsPerMachine, what: 'console sessions' })
    }
    const session = new ConsoleSession(limits.consoleBacklogBytes, (bytes, done) =>
      this.#type(bytes, done),
    )
    this.#sessions.add(session)
    session.on('close', () => this.#sessions.delete(session))
    // A session may end by an error that its user learns from the stream; it must not end the daemon.
    session.on('error', () => {})
    try {
      const tail = { limitBytes: limits.consoleReplayBytes }
      session.begin(await readLogTail(this.#init.folder.consoleLog, tail))
    } catch (error) {
      session.destroy()
      throw error
    }
    return session
  }

  async close(): Promise<void> {
    this.#closing.abort()
    for (const session of this.#sessions) session.finish()
    this.#socket?.destroy()
    await this.#finished
  }

  async #serveConnection(): Promise<unknown> {
    const socket = await connectGuestSocket(this.#init.folder.console, 2000, this.#components.clock)
    const { promise: closed, resolve } = Promise.withResolvers<void>()
    socket.on('close', () => resolve())
    socket.on('data', bytes => this.#hear(bytes))
    if (this.#closing.signal.aborted) socket.destroy()
    this.#socket = socket
    await this.#lookAtLog()
    await closed
    this.#socket = undefined
    return this.#gone()
  }

  /** What was said before there was a connection is in the log alone. */
  async #lookAtLog(): Promise<void> {
    const { folder, startedAtMs } = this.#init
    if (this.#firstByteSeen || startedAtMs === undefined) return
    const log = await stat(folder.consoleLog).catch(() => undefined)
    if (log !== undefined && log.size > 0 && log.mtimeMs >= startedAtMs) {
      this.#noteFirstByte(log.mtimeMs)
    }
  }

  #noteFirstByte(wallMs: number): void {
    if (this.#firstByteSeen) return
    this.#firstByteSeen = true
    this.#init.onFirstByte?.(wallMs)
  }

  #hear(bytes: Buffer): void {
    this.#noteFirstByte(this.#components.clock.wallMs())
    for (const session of this.#sessions) session.hear(bytes)
  }

  #type(bytes: Buffer, done: () => void): void {
    if (this.#socket?.writable) this.#socket.write(bytes, () => done())
    else done()
  }

  #gone(): Error {
    return failure('consoleUnavailable', { detail: 'QEMU let go of it' })
  }
}
