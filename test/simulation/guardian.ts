import { createFencing, type Fencing } from '../../agent/guardian/fencing.ts'
import type { RenewalOutcome, Renewer } from '../../agent/guardian/lease-renewal.ts'
import type {
  EndReason,
  ExitEvent,
  GuardedProcess,
  GuardianHello,
  GuestClaim,
  HeartbeatAnswer,
  LeaseParameters,
} from '../../agent/guardian/protocol.ts'
import { timestamp } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { ProcessIdentity } from '../../base/process-identity.ts'
import type { Store } from '../../cluster/store/store.ts'
import type { Actor } from './actor.ts'
import type { Guest, GuestEnd, Guests } from './guests.ts'

/** What a simulated guardian is told about its surroundings. */
export interface GuardianInit {
  host: string
  version: string
  /** The ends of an earlier guardian's processes. */
  ended: readonly GuardedProcess[]
  /** On purpose broken: it kills nobody. */
  spares: boolean
  /** A guest is killed because the lease was not renewed. */
  onFenced(uid: string): void
  onExit(event: ExitEvent): void
}

/** What it needs. */
export interface GuardianComponents {
  actor: Actor
  guests: Guests
  /** Its own way to etcd. */
  store: Store
}

interface Kept {
  process: GuardedProcess
  guest?: Guest
}

/** What starts a guest, without all that is no matter here. */
export interface GuestStart {
  name: string
  claim?: GuestClaim
}

/**
 * The guardian with the real fencing; its processes are records in the truth. The rules of starts,
 * claims and ends follow agent/guardian/processes.ts.
 */
export class SimulatedGuardian {
  readonly actor: Actor
  readonly #init: GuardianInit
  readonly #guests: Guests
  readonly #fencing: Fencing
  readonly #kept = new Map<string, Kept>()
  readonly #fenced = new Set<string>()

  constructor(init: GuardianInit, { actor, guests, store }: GuardianComponents) {
    this.actor = actor
    this.#init = init
    this.#guests = guests
    this.#fencing = createFencing(
      {
        kill: name => this.#fence(name),
        renewer: lease => createStoreRenewer(lease, actor, store),
      },
      { clock: actor.clock, bootClock: actor.bootClock, log: actor.log },
    )
    for (const process of init.ended) this.#kept.set(process.name, { process })
  }

  hello(): GuardianHello {
    return { version: this.#init.version, pid: 1, startTicks: 1 }
  }

  /** @throws guardianNameTaken, guardianFenced */
  async start({ name, claim }: GuestStart): Promise<ProcessIdentity> {
    const there = this.#kept.get(name)
    if (there !== undefined) {
      const state = there.process.ended === undefined ? 'runs' : 'has ended'
      throw failure('guardianNameTaken', { name, state })
    }
    if (claim !== undefined) this.#fencing.admit(name, claim)
    const kept: Kept = { process: { name, startedAt: timestamp(this.actor.clock) } }
    this.#kept.set(name, kept)
    await this.actor.pass(this.actor.world.chance.between(2, 60))
    const guest = this.#guests.start(name, this.#init.host, end =>
      this.actor.after(0, () => this.#onEnd(kept, end)),
    )
    kept.guest = guest
    kept.process = { ...kept.process, identity: guest.identity }
    return guest.identity
  }

  list(): GuardedProcess[] {
    return [...this.#kept.values()].map(({ process }) => process)
  }

  /** @throws guardianProcessNotFound, guardianStaleIdentity */
  signal(name: string, identity: ProcessIdentity): boolean {
    const kept = this.#kept.get(name)
    if (kept === undefined) throw failure('guardianProcessNotFound', { name })
    const { pid } = identity
    if (kept.process.identity?.pid !== pid) throw failure('guardianStaleIdentity', { name, pid })
    if (kept.guest === undefined || kept.guest.ended !== undefined) return false
    this.#guests.kill(kept.guest)
    return true
  }

  /** @throws guardianProcessNotFound, guardianNameTaken */
  forget(name: string): void {
    const kept = this.#kept.get(name)
    if (kept === undefined) throw failure('guardianProcessNotFound', { name })
    if (kept.process.ended === undefined) {
      throw failure('guardianNameTaken', { name, state: 'runs' })
    }
    this.#kept.delete(name)
  }

  /** @throws guardianProcessNotFound, guardianFenced */
  claim(name: string, claim: GuestClaim, ahead: boolean): void {
    const kept = this.#kept.get(name)
    if (kept === undefined || kept.process.ended !== undefined) {
      throw failure('guardianProcessNotFound', { name })
    }
    if (ahead && (!claim.fenced || this.#fencing.deadlineOf(name) !== undefined)) return
    if (claim.fenced) this.#fencing.admit(name, claim)
    else this.#fencing.release(name)
  }

  lease(parameters: LeaseParameters): Promise<void> {
    return this.#fencing.hold(parameters)
  }

  endLease(): void {
    this.#fencing.letGo()
  }

  expectSilence(forMs: number): void {
    this.#fencing.expectSilence(forMs)
  }

  heartbeat(): HeartbeatAnswer {
    const lease = this.#fencing.heartbeat()
    const fenced = this.list().flatMap(({ name, identity }) => {
      const deadlineMs = this.#fencing.deadlineOf(name)
      return deadlineMs === undefined ? [] : { name, ...(identity && { identity }), deadlineMs }
    })
    return { ...(lease && { lease }), fenced }
  }

  #fence(name: string): void {
    const { guest } = this.#kept.get(name) ?? {}
    if (guest === undefined || guest.ended !== undefined || this.#init.spares) return
    if (!this.#fenced.has(name)) this.#init.onFenced(name)
    this.#fenced.add(name)
    this.#guests.kill(guest)
  }

  #onEnd(kept: Kept, end: GuestEnd): void {
    const { name } = kept.process
    const killed = end.signal === 'SIGKILL'
    const reason: EndReason = killed && this.#fencing.isDue(name) ? 'fenced' : 'exited'
    const endedAt = timestamp(this.actor.clock)
    const ended = { reason, ...end, endedAt, stderrTail: '' }
    this.#fencing.release(name)
    this.#fenced.delete(name)
    kept.process = { ...kept.process, ended }
    this.#init.onExit({ event: 'exit', ...kept.process, ended })
  }
}

/** Renews as the real one does (lease-renewal.ts), over the simulated network. */
function createStoreRenewer(lease: LeaseParameters, { bootClock }: Actor, store: Store): Renewer {
  const once = async (): Promise<RenewalOutcome> => {
    const sentMs = bootClock.nowMs()
    await store.renewLease(lease.leaseId)
    const { entry } = await store.get(lease.key)
    return entry?.lease === lease.leaseId ? { kind: 'renewed', sentMs } : { kind: 'gone' }
  }
  return {
    async renew() {
      let detail = ''
      for (let tries = 0; tries < lease.timing.endpointsMost; tries++) {
        try {
          return await once()
        } catch (error) {
          if (error instanceof Error && 'code' in error && error.code === 'leaseNotFound') {
            return { kind: 'gone' }
          }
          detail = error instanceof Error ? error.message : String(error)
        }
      }
      return { kind: 'failed', detail }
    },
    close: () => {},
  }
}
