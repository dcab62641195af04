import type { BackoffInit } from '../base/backoff.ts'
import { type Clock, withTimeout } from '../base/clock.ts'
import { failure, isFailure, type MacfleetError } from '../base/errors.ts'
import type { Limits } from '../base/limits.ts'
import { type Log, messageOf } from '../base/log.ts'
import { checkAllowed, type GuestAction } from './actions.ts'
import type { GuestFolder } from './guest-folder.ts'
import { useImageFile } from './image-switch.ts'
import { connectQmp, type ExecuteParameters, type QmpClient } from './qmp/client.ts'
import type { QmpBlockName, QmpQueryName, QmpReturns, RunState } from './qmp/commands.ts'
import type { QmpEvent } from './qmp/events.ts'
import { keepConnected } from './reconnect.ts'

/** Which guest, and how patiently. */
export interface GuestInit {
  /** Its sockets. The watch socket (`qmpWatch`) is left free for whoever debugs. */
  folder: Pick<GuestFolder, 'qmp'>
  /** Between tries to connect; 20 ms up to 1 s by default: a QEMU that starts is there in 50 ms. */
  backoff?: BackoffInit
  /** For each command; 10 s by default. */
  commandTimeoutMs?: number
}

/** What controlling a guest needs. */
export interface GuestComponents {
  clock: Clock
  log: Log
  limits: Limits
}

/** What is known of a guest now. */
export interface GuestStatus {
  /** Whether QEMU answers; when it does not, the rest is what it told last. */
  readonly connected: boolean
  /** Undefined until QEMU was reached for the first time. */
  readonly runState: RunState | undefined
  /** QEMU's version, for example `7.2.22`. */
  readonly qemuVersion: string | undefined
  /** Why QEMU does not answer. */
  readonly problem: string | undefined
}

/** How long to wait for a guest, and for what. */
export interface WaitOptions {
  /** For the error message: `the guest to power off`. */
  what: string
  timeoutMs: number
  signal?: AbortSignal
}

/**
 * A running guest under control: one connection to its QEMU that comes back by itself. Events that
 * QEMU sent in between are lost, so the state is asked for anew each time and never computed from
 * them.
 */
export interface Guest {
  status(): GuestStatus
  /** Calls back at every change of status, until the returned function is called. */
  onChange(listener: (status: GuestStatus) => void): () => void
  /** Calls back at every event that QEMU sends while we are connected. */
  onEvent(listener: (event: QmpEvent) => void): () => void
  /**
   * Resolves with the first status that satisfies the predicate, now or later.
   * @throws timeout, the signal's reason, or guestUnreachable after `close()`
   */
  waitFor(predicate: (status: GuestStatus) => boolean, options: WaitOptions): Promise<GuestStatus>
  /**
   * Does something to the guest, when its run state allows it. Resolves when it is done: a reset
   * when the guest starts anew, a quit when QEMU has let go of its socket; a powerdown when it was
   * asked.
   * @throws actionNotAllowed, guestUnreachable, guestBusy, qemuRefused, timeout
   */
  perform(action: GuestAction): Promise<void>
  /**
   * Asks QEMU for something that changes nothing. @throws guestUnreachable, qemuRefused, timeout
   */
  query<Name extends QmpQueryName>(
    name: Name,
    ...parameters: ExecuteParameters<Name>
  ): Promise<QmpReturns<Name>>
  /**
   * Changes the block graph behind the guest's disks, of which the guest sees nothing.
   * @throws guestUnreachable, qemuRefused, timeout
   */
  changeBlocks<Name extends QmpBlockName>(
    name: Name,
    ...parameters: ExecuteParameters<Name>
  ): Promise<QmpReturns<Name>>
  /** Lets go of the guest, which runs on. */
  close(): Promise<void>
}

/** Events after which the run state may be another one. */
const runStateEvents: ReadonlySet<QmpEvent['event']> = new Set([
  'STOP',
  'RESUME',
  'SUSPEND',
  'SUSPEND_DISK',
  'WAKEUP',
  'RESET',
  'SHUTDOWN',
  'GUEST_PANICKED',
  'WATCHDOG',
  'BLOCK_IO_ERROR',
  'MIGRATION',
] as const)

/**
 * Takes control of a guest whose QEMU runs or is about to; returns at once and connects by itself.
 */
export function attachGuest(init: GuestInit, components: GuestComponents): Guest {
  return new AttachedGuest(init, components)
}

class AttachedGuest implements Guest {
  readonly #init: GuestInit
  readonly #components: GuestComponents
  readonly #closing = new AbortController()
  readonly #finished: Promise<void>
  readonly #changeListeners = new Set<(status: GuestStatus) => void>()
  readonly #eventListeners = new Set<(event: QmpEvent) => void>()
  #client: QmpClient | undefined
  #refreshing: Promise<void> | undefined
  #stale = false
  #status: GuestStatus = {
    connected: false,
    runState: undefined,
    qemuVersion: undefined,
    problem: undefined,
  }

  constructor(init: GuestInit, components: GuestComponents) {
    this.#init = init
    this.#components = components
    this.#finished = keepConnected(
      {
        serve: () => this.#serveConnection(),
        onLost: reason => this.#publish({ connected: false, problem: messageOf(reason) }),
        backoff: init.backoff,
        signal: this.#closing.signal,
      },
      components.clock,
    )
  }

  status(): GuestStatus {
    return this.#status
  }

  onChange(listener: (status: GuestStatus) => void): () => void {
    this.#changeListeners.add(listener)
    return () => this.#changeListeners.delete(listener)
  }

  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#eventListeners.add(listener)
    return () => this.#eventListeners.delete(listener)
  }

  async waitFor(
    predicate: (status: GuestStatus) => boolean,
    { what, timeoutMs, signal }: WaitOptions,
  ): Promise<GuestStatus> {
    signal?.throwIfAborted()
    const { promise, resolve, reject } = Promise.withResolvers<GuestStatus>()
    const look = (status: GuestStatus) => {
      if (predicate(status)) resolve(status)
    }
    const onAbort = () => reject(signal?.reason)
    const onClose = () => reject(this.#unreachable('we let go of the guest'))
    const forget = this.onChange(look)
    signal?.addEventListener('abort', onAbort)
    this.#closing.signal.addEventListener('abort', onClose)
    try {
      if (this.#closing.signal.aborted) onClose()
      look(this.#status)
      const late = () => failure('timeout', { what: `waiting for ${what}`, timeoutMs })
      return await withTimeout(this.#components.clock, timeoutMs, promise, late)
    } finally {
      forget()
      signal?.removeEventListener('abort', onAbort)
      this.#closing.signal.removeEventListener('abort', onClose)
    }
  }

  async perform(action: GuestAction): Promise<void> {
    const client = this.#connected()
    if (action.kind === 'quit') return await this.#quit(client)
    const { status: runState } = await client.execute('query-status')
    checkAllowed(action.kind, runState)
    if (action.kind === 'powerdown') await client.execute('system_powerdown')
    else if (action.kind === 'pause') await client.execute('stop')
    else if (action.kind === 'resume') await client.execute('cont')
    else if (action.kind === 'useImageFile') await useImageFile(client)
    else await this.#reset(client, runState)
    await this.#refresh(client)
  }

  async query<Name extends QmpQueryName>(
    name: Name,
    ...parameters: ExecuteParameters<Name>
  ): Promise<QmpReturns<Name>> {
    return await this.#connected().execute(name, ...parameters)
  }

  async changeBlocks<Name extends QmpBlockName>(
    name: Name,
    ...parameters: ExecuteParameters<Name>
  ): Promise<QmpReturns<Name>> {
    return await this.#connected().execute(name, ...parameters)
  }

  async close(): Promise<void> {
    this.#closing.abort()
    this.#client?.close()
    await this.#finished
  }

  async #quit(client: QmpClient): Promise<void> {
    // QEMU may be gone before its answer was read: that is what was asked for.
    await client.execute('quit').catch(error => {
      if (!isFailure(error, 'guestUnreachable')) throw error
    })
    await this.#within(client.ended, "QEMU's end after quit")
  }

  async #reset(client: QmpClient, runState: RunState): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const forget = this.onEvent(event => {
      if (event.event === 'RESET') resolve()
    })
    void client.ended.then(reject)
    promise.catch(() => {})
    try {
      await client.execute('system_reset')
      // `cont` before the reset has happened is refused in some states.
      await this.#within(promise, "the guest's reset")
    } finally {
      forget()
    }
    const stays = runState === 'running' || runState === 'paused' || runState === 'prelaunch'
    if (!stays) await client.execute('cont')
  }

  #within<T>(promise: Promise<T>, what: string): Promise<T> {
    const timeoutMs = this.#init.commandTimeoutMs ?? 10_000
    const late = () => failure('timeout', { what, timeoutMs })
    return withTimeout(this.#components.clock, timeoutMs, promise, late)
  }

  #connected(): QmpClient {
    if (this.#client !== undefined && this.#status.connected) return this.#client
    throw this.#unreachable(this.#status.problem ?? 'not connected yet')
  }

  #unreachable(detail: string): MacfleetError {
    return failure('guestUnreachable', { path: this.#init.folder.qmp, detail })
  }

  /** Connects, asks for the state, and returns the reason when the connection has ended. */
  async #serveConnection(): Promise<Error> {
    const client = await connectQmp(
      {
        socketPath: this.#init.folder.qmp,
        onEvent: event => this.#onEvent(event),
        ...(this.#init.commandTimeoutMs && { commandTimeoutMs: this.#init.commandTimeoutMs }),
      },
      this.#components,
    )
    try {
      this.#closing.signal.throwIfAborted()
      this.#client = client
      await this.#refresh(client)
      return await client.ended
    } finally {
      this.#client = undefined
      client.close()
    }
  }

  #onEvent(event: QmpEvent): void {
    const client = this.#client
    if (client !== undefined && runStateEvents.has(event.event)) {
      this.#refresh(client).catch(error => {
        // A QEMU that does not even tell its state is not under control: start over.
        this.#components.log.debug({ error: messageOf(error) }, 'QEMU did not tell its state')
        client.close()
      })
    }
    for (const listener of this.#eventListeners) this.#call(() => listener(event))
  }

  /**
   * Asks for the state; once more when somebody wanted to know while the question was under way.
   */
  #refresh(client: QmpClient): Promise<void> {
    this.#stale = true
    this.#refreshing ??= this.#askUntilFresh(client).finally(() => {
      this.#refreshing = undefined
    })
    return this.#refreshing
  }

  async #askUntilFresh(client: QmpClient): Promise<void> {
    while (this.#stale) {
      this.#stale = false
      const { status: runState } = await client.execute('query-status')
      const qemuVersion = client.version
      this.#publish({ connected: true, runState, qemuVersion, problem: undefined })
    }
  }

  #publish(changes: Partial<GuestStatus>): void {
    const before = this.#status
    const after = { ...before, ...changes }
    const names: (keyof GuestStatus)[] = ['connected', 'runState', 'qemuVersion', 'problem']
    if (names.every(name => before[name] === after[name])) return
    this.#status = after
    for (const listener of this.#changeListeners) this.#call(() => listener(after))
  }

  #call(listener: () => void): void {
    try {
      listener()
    } catch (error) {
      this.#components.log.error({ error: messageOf(error) }, 'a listener of a guest failed')
    }
  }
}
