import type { BackoffInit } from '../../base/backoff.ts'
import { type Clock, withTimeout } from '../../base/clock.ts'
import { failure, messageOf } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import type { ProcessIdentity } from '../../base/process-identity.ts'
import { maintainConnection } from './connection.ts'
import type {
  ExitEvent,
  GuardedProcess,
  GuardianHello,
  GuardianMethod,
  GuardianMethods,
  GuestClaim,
  HeartbeatAnswer,
  LeaseParameters,
  StartParameters,
} from './protocol.ts'

/** How the guardian is reached. */
export interface GuardianClientInit {
  socketPath: string
  /**
   * A request that takes longer fails; it may have been carried out, so `list` before the next.
   */
  timeoutMs: number
  /** The wait between tries to connect. */
  reconnect: BackoffInit
  limits: Limits
}

/** What the client needs. */
export interface GuardianClientComponents {
  clock: Clock
  log: Log
}

/** Ends a subscription. */
export type Unsubscribe = () => void

/**
 * The guardian, as its clients see it. Requests wait for a connection within their timeout. Events
 * that happen while there is none are not repeated: `list` in `onConnected`, every time.
 * Every method throws guardianUnavailable when the guardian does not answer.
 */
export interface Guardian {
  hello(): Promise<GuardianHello>
  /** @throws guardianNameTaken, tooMany, commandMissing, guardianRefused, guardianFenced */
  start(parameters: StartParameters): Promise<ProcessIdentity>
  list(): Promise<GuardedProcess[]>
  /**
   * Signals exactly the process meant; false when it has ended.
   * @throws guardianProcessNotFound, guardianStaleIdentity
   */
  signal(name: string, signal: NodeJS.Signals, identity: ProcessIdentity): Promise<boolean>
  /**
   * Drops the record of an end: only then the name is free again.
   * @throws guardianProcessNotFound, or guardianNameTaken while it runs
   */
  forget(name: string): Promise<void>
  /**
   * Renews the host's lease from now on. Told again with the same revision it goes on with it, with
   * the certificates and endpoints of now.
   * @throws guardianRefused
   */
  lease(parameters: LeaseParameters): Promise<void>
  /** Renews no more; fenced guests die by their deadline. */
  endLease(): Promise<void>
  /** Says that the daemon lives, and asks for the lease and the fenced guests. */
  heartbeat(): Promise<HeartbeatAnswer>
  /** Announces that the daemon will be silent: a planned restart. */
  expectSilence(forMs: number): Promise<void>
  /**
   * What runs was claimed anew: say it after the store has the claim. With `ahead` it is about to
   * be: then a guest that was not fenced is from now on, and one that was gets no more time.
   * @throws guardianProcessNotFound, guardianFenced
   */
  claim(name: string, claim: GuestClaim, ahead?: boolean): Promise<void>
  /** Ends the guardian; by force also its processes. @throws guardianBusy */
  stop(force: boolean): Promise<void>
  /** Called for every end, at most once a connection. */
  onExit(listener: (event: ExitEvent) => void): Unsubscribe
  /** Called after every connection made, with the guardian that answered: it may be a new one. */
  onConnected(listener: (hello: GuardianHello) => void): Unsubscribe
  /** Called when a connection that was made is lost. */
  onLost(listener: () => void): Unsubscribe
  /** Drops the connection and what waits. The guardian and its processes go on. */
  close(): void
}

/** Connects to the guardian and stays connected until `close`. */
export function connectGuardian(
  init: GuardianClientInit,
  components: GuardianClientComponents,
): Guardian {
  const { clock, log } = components
  const exitListeners = new Set<(event: ExitEvent) => void>()
  const connectedListeners = new Set<(hello: GuardianHello) => void>()
  const lostListeners = new Set<() => void>()
  const connection = maintainConnection(
    {
      ...init,
      onConnected() {
        request('hello', {}).then(
          hello => notify(connectedListeners, hello, log),
          error => log.warn({ error: messageOf(error) }, 'the guardian does not say who it is'),
        )
      },
      onLost: () => notify(lostListeners, undefined, log),
      onEvent: event => notify(exitListeners, event, log),
    },
    clock,
  )

  const request = async <Method extends GuardianMethod>(
    method: Method,
    parameters: GuardianMethods[Method]['parameters'],
  ): Promise<GuardianMethods[Method]['result']> => {
    const unavailable = () =>
      failure('guardianUnavailable', {
        path: init.socketPath,
        detail: `no answer to ${method} within ${init.timeoutMs} ms`,
      })
    const abort = new AbortController()
    const answer = connection.request(method, parameters, abort.signal)
    try {
      const result = await withTimeout(clock, init.timeoutMs, answer, unavailable)
      // The guardian is our own program under our own uid; its answers have the protocol's types.
      return result as GuardianMethods[Method]['result']
    } finally {
      abort.abort()
    }
  }

  return {
    hello: () => request('hello', {}),
    start: parameters => request('start', parameters),
    list: () => request('list', {}),
    async signal(name, signal, identity) {
      return (await request('signal', { name, signal, identity })).delivered
    },
    async forget(name) {
      await request('forget', { name })
    },
    async lease(parameters) {
      await request('lease', parameters)
    },
    async endLease() {
      await request('endLease', {})
    },
    heartbeat: () => request('heartbeat', {}),
    async expectSilence(forMs) {
      await request('expectSilence', { forMs })
    },
    async claim(name, claim, ahead = false) {
      await request('claim', { name, claim, ahead })
    },
    async stop(force) {
      await request('stop', { force })
    },
    onExit: listener => subscribe(exitListeners, listener),
    onConnected: listener => subscribe(connectedListeners, listener),
    onLost: listener => subscribe(lostListeners, listener),
    close: () => connection.close(),
  }
}

function subscribe<Listener>(listeners: Set<Listener>, listener: Listener): Unsubscribe {
  listeners.add(listener)
  return () => listeners.delete(listener)
}

function notify<Value>(listeners: Set<(value: Value) => void>, value: Value, log: Log): void {
  for (const listener of listeners) {
    try {
      listener(value)
    } catch (error) {
      log.error({ error: messageOf(error) }, 'a listener to the guardian failed')
    }
  }
}
