import type { Guardian, Unsubscribe } from '../../agent/guardian/client.ts'
import type { ExitEvent, GuardianHello } from '../../agent/guardian/protocol.ts'
import type { Timer } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { Actor } from './actor.ts'
import type { SimulatedGuardian } from './guardian.ts'

/** As the daemon has it (agent/guardian-keeper.ts). */
const requestMs = 10_000

interface Request {
  sent: boolean
  timer: Timer
  ask(guardian: SimulatedGuardian): Promise<unknown>
  resolve(result: unknown): void
  reject(error: unknown): void
}

/** The daemon's end of the socket between it and its guardian. */
export class GuardianClient implements Guardian {
  readonly #actor: Actor
  readonly #waiting = new Set<Request>()
  readonly #exitListeners = new Set<(event: ExitEvent) => void>()
  readonly #connectedListeners = new Set<(hello: GuardianHello) => void>()
  readonly #lostListeners = new Set<() => void>()
  #guardian: SimulatedGuardian | undefined
  /** The guardian serves one client's requests one after the other. */
  #serving: Promise<unknown> = Promise.resolve()

  constructor(actor: Actor) {
    this.#actor = actor
  }

  /** A guardian listens. */
  connect(guardian: SimulatedGuardian): void {
    this.#actor.deliver(() => {
      this.#guardian = guardian
      this.#serving = Promise.resolve()
      this.#request(async one => one.hello()).then(
        hello => {
          for (const listener of this.#connectedListeners) listener(hello)
        },
        () => {},
      )
      for (const one of this.#waiting) if (!one.sent) this.#send(one, guardian)
    })
  }

  /** The guardian that it was connected with has ended. */
  disconnect(guardian: SimulatedGuardian): void {
    this.#actor.deliver(() => {
      if (this.#guardian !== guardian) return
      this.#guardian = undefined
      for (const one of this.#waiting) {
        if (!one.sent) continue
        this.#drop(one)
        one.reject(unavailable('the connection was lost'))
      }
      for (const listener of this.#lostListeners) listener()
    })
  }

  /** A guest has ended; told to those that listen just then. */
  tell(guardian: SimulatedGuardian, event: ExitEvent): void {
    this.#actor.after(this.#latencyMs(), () => {
      if (this.#guardian !== guardian) return
      for (const listener of this.#exitListeners) listener(event)
    })
  }

  hello = () => this.#request(async one => one.hello())
  start: Guardian['start'] = parameters => this.#request(one => one.start(parameters))
  list = () => this.#request(async one => one.list())
  signal: Guardian['signal'] = (name, _, identity) =>
    this.#request(async one => one.signal(name, identity))
  forget = (name: string) => this.#request(async one => one.forget(name))
  lease: Guardian['lease'] = parameters => this.#request(one => one.lease(parameters))
  endLease = () => this.#request(async one => one.endLease())
  heartbeat = () => this.#request(async one => one.heartbeat())
  expectSilence = (forMs: number) => this.#request(async one => one.expectSilence(forMs))
  claim: Guardian['claim'] = (name, claim, ahead = false) =>
    this.#request(async one => one.claim(name, claim, ahead))
  stop = async () => {}
  onExit = (listener: (event: ExitEvent) => void) => listen(this.#exitListeners, listener)
  onConnected = (listener: (hello: GuardianHello) => void) =>
    listen(this.#connectedListeners, listener)
  onLost = (listener: () => void) => listen(this.#lostListeners, listener)
  close = () => {}

  #request<Result>(ask: (guardian: SimulatedGuardian) => Promise<Result>): Promise<Result> {
    return new Promise((resolve, reject) => {
      const timer = this.#actor.clock.setTimer(requestMs, () => {
        this.#waiting.delete(one)
        reject(unavailable(`no answer within ${requestMs} ms`))
      })
      const one: Request = {
        ...{ sent: false, timer, ask, reject },
        resolve: result => resolve(result as Result),
      }
      this.#waiting.add(one)
      if (this.#guardian !== undefined) this.#send(one, this.#guardian)
    })
  }

  #send(one: Request, guardian: SimulatedGuardian): void {
    one.sent = true
    const answer = (settle: () => void): void => {
      this.#actor.after(this.#latencyMs(), () => {
        if (!this.#waiting.has(one)) return
        this.#drop(one)
        settle()
      })
    }
    const arrived = guardian.actor.pass(this.#latencyMs())
    this.#serving = Promise.all([arrived, this.#serving])
      .then(() => one.ask(guardian))
      .then(
        result => answer(() => one.resolve(result)),
        error => answer(() => one.reject(error)),
      )
  }

  #drop(one: Request): void {
    one.timer.cancel()
    this.#waiting.delete(one)
  }

  #latencyMs(): number {
    return this.#actor.world.chance.between(0.05, 1)
  }
}

function unavailable(detail: string): Error {
  return failure('guardianUnavailable', { path: 'guardian.sock', detail })
}

function listen<Listener>(listeners: Set<Listener>, listener: Listener): Unsubscribe {
  listeners.add(listener)
  return () => listeners.delete(listener)
}
