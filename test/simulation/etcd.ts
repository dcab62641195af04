import type { Clock, Timer } from '../../base/clock.ts'
import { defaultLimits, type Limits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { leaderKey } from '../../cluster/fleet/keys.ts'
import { createMemoryStore } from '../../cluster/store/memory.ts'
import type { Entry, Store, Transaction, TransactionResult } from '../../cluster/store/store.ts'
import type { World } from './world.ts'

/** A transaction that took effect. */
export interface Effect {
  /** Who sent it. */
  host: string
  transaction: Transaction
  result: TransactionResult
  /** The term of the leader that decided it, where one did. */
  fence: number | undefined
}

/** How etcd is made. */
export interface EtcdInit {
  /** How fast its clock goes. */
  rate: number
  onEffect(effect: Effect): void
  /** On purpose broken: it does not look at the leader's key. */
  dropsFence: boolean
}

/** A bound that a simulated burst does not meet. */
export const limits: Limits = { ...defaultLimits, watchBacklog: 100_000, storeHistory: 100_000 }

/**
 * What the members of etcd are together: a linearizable store that does not answer while it has no
 * leader, ends no lease meanwhile, and gives each lease its whole life when it has one again.
 */
export class Etcd {
  readonly store: Store
  readonly #init: EtcdInit
  readonly #world: World
  readonly #clock: PausableClock
  readonly #leases = new Set<string>()
  #waiting: (() => void)[] = []
  #hasLeader = true

  constructor(init: EtcdInit, world: World) {
    this.#init = init
    this.#world = world
    this.#clock = new PausableClock(world, init.rate)
    const { random } = world.chance.fork()
    this.store = createMemoryStore({ clock: this.#clock, random, limits, log: silentLog })
  }

  get hasLeader(): boolean {
    return this.#hasLeader
  }

  /** Does something now, or when there is a leader; what waits for one may be lost with the old. */
  whenLed(work: () => void): void {
    if (this.#hasLeader) work()
    else if (this.#world.chance.happens(0.7)) this.#waiting.push(work)
  }

  async transaction(host: string, asked: Transaction): Promise<TransactionResult> {
    const at = asked.compare.findIndex(
      compare => compare.key === leaderKey && 'createRevision' in compare,
    )
    const compare = asked.compare[at]
    const fence = compare && 'createRevision' in compare ? compare.createRevision : undefined
    const result = this.#init.dropsFence
      ? await this.#unfenced(asked, at)
      : await this.store.transaction(asked)
    if (result.succeeded) this.#init.onEffect({ host, transaction: asked, result, fence })
    return result
  }

  async grantLease(ttlMs: number): Promise<string> {
    const lease = await this.store.grantLease(ttlMs)
    this.#leases.add(lease)
    return lease
  }

  async revokeLease(lease: string): Promise<void> {
    this.#leases.delete(lease)
    await this.store.revokeLease(lease)
  }

  /** It has no leader for so long. */
  elect(forMs: number): void {
    if (!this.#hasLeader) return
    this.#hasLeader = false
    this.#clock.pause()
    this.#world.after(forMs, () => this.#led())
  }

  /** As a leader that was stopped for long does: all leases end, renewed or not. */
  endLeases(): void {
    for (const lease of this.#leases) {
      this.#leases.delete(lease)
      void this.store.revokeLease(lease).catch(() => {})
    }
  }

  #led(): void {
    this.#hasLeader = true
    for (const lease of this.#leases) {
      this.store.renewLease(lease).catch(() => this.#leases.delete(lease))
    }
    this.#clock.resume()
    const waiting = this.#waiting
    this.#waiting = []
    for (const work of waiting) work()
  }

  /** The same without the compare of the leader's key, which its sender believes to hold. */
  async #unfenced(asked: Transaction, at: number): Promise<TransactionResult> {
    if (at < 0) return await this.store.transaction(asked)
    const compare = asked.compare.filter((_, index) => index !== at)
    const result = await this.store.transaction({ ...asked, compare })
    if (result.succeeded) return result
    const dropped = asked.compare[at]
    const createRevision = dropped && 'createRevision' in dropped ? dropped.createRevision : 0
    const believed: Entry = { key: leaderKey, value: {}, createRevision, modRevision: 1 }
    const current = [...result.current]
    current.splice(at, 0, believed)
    return { ...result, current }
  }
}

/** The clock by which leases end: it stands still while etcd has no leader. */
class PausableClock implements Clock {
  readonly #world: World
  readonly #rate: number
  #pausedMs = 0
  #sinceMs: number | undefined
  readonly #pending = new Map<object, { leftMs: number; setMs: number; callback: () => void }>()
  readonly #timers = new Map<object, Timer>()

  constructor(world: World, rate: number) {
    this.#world = world
    this.#rate = rate
  }

  wallMs(): number {
    return this.monotonicMs()
  }

  monotonicMs(): number {
    const untilMs = this.#sinceMs ?? this.#world.nowMs
    return (untilMs - this.#pausedMs) * this.#rate
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const id = {}
    const leftMs = Math.max(1, delayMs) / this.#rate
    this.#pending.set(id, { leftMs, setMs: this.#world.nowMs, callback })
    this.#arm(id)
    return {
      cancel: () => {
        this.#timers.get(id)?.cancel()
        this.#timers.delete(id)
        this.#pending.delete(id)
      },
    }
  }

  pause(): void {
    this.#sinceMs = this.#world.nowMs
    for (const [id, one] of this.#pending) {
      this.#timers.get(id)?.cancel()
      one.leftMs -= this.#world.nowMs - one.setMs
    }
  }

  resume(): void {
    this.#pausedMs += this.#world.nowMs - (this.#sinceMs ?? this.#world.nowMs)
    this.#sinceMs = undefined
    for (const [id, one] of this.#pending) {
      one.setMs = this.#world.nowMs
      this.#arm(id)
    }
  }

  #arm(id: object): void {
    const one = this.#pending.get(id)
    if (one === undefined || this.#sinceMs !== undefined) return
    const timer = this.#world.after(one.leftMs, () => {
      this.#timers.delete(id)
      this.#pending.delete(id)
      one.callback()
    })
    this.#timers.set(id, timer)
  }
}
