import type { ProcessIdentity } from '../../base/process-identity.ts'
import type { World } from './world.ts'

/** How the process of a guest ended. */
export interface GuestEnd {
  code: number | null
  signal: string | null
}

/** A QEMU that runs, in truth: whatever anybody knows of it. */
export interface Guest {
  readonly uid: string
  readonly host: string
  readonly identity: ProcessIdentity
  readonly sinceMs: number
  ended: GuestEnd | undefined
}

/** A kill takes up to so long; together with two late checks it stays within `Timing.killMs`. */
const killMostMs = 450

/** All guests of all hosts. No machine may ever have two that run. */
export class Guests {
  readonly #world: World
  readonly #running = new Map<string, Set<Guest>>()
  readonly #dying = new WeakSet<Guest>()
  readonly #listeners = new Map<Guest, (end: GuestEnd) => void>()
  #lastPid = 1_000

  constructor(world: World) {
    this.#world = world
  }

  /** @param onEnd called when it has ended, at once */
  start(uid: string, host: string, onEnd: (end: GuestEnd) => void): Guest {
    const world = this.#world
    const pid = ++this.#lastPid
    const identity = { pid, startTicks: Math.round(world.nowMs) }
    const guest: Guest = { uid, host, identity, sinceMs: world.nowMs, ended: undefined }
    const others = this.#running.get(uid) ?? new Set()
    world.tell(host, `guest ${uid} begins to run, pid ${pid}`)
    for (const other of others) {
      const sinceMs = Math.round(world.nowMs - other.sinceMs)
      const there = `${other.host}, where it has been running for ${sinceMs} ms`
      world.violate(`machine ${uid} runs twice: on ${host} and on ${there}`, [
        uid,
        host,
        other.host,
      ])
    }
    this.#running.set(uid, others.add(guest))
    this.#listeners.set(guest, onEnd)
    return guest
  }

  /** SIGKILL: it ends soon. */
  kill(guest: Guest): void {
    if (this.#dying.has(guest)) return
    this.#dying.add(guest)
    const takesMs = this.#world.chance.between(1, killMostMs)
    this.#world.after(takesMs, () => this.end(guest, { code: null, signal: 'SIGKILL' }))
  }

  /** It has ended. */
  end(guest: Guest, end: GuestEnd): void {
    if (guest.ended !== undefined) return
    guest.ended = end
    this.#world.tell(guest.host, `guest ${guest.uid} has ended (${end.signal ?? end.code})`)
    const others = this.#running.get(guest.uid)
    others?.delete(guest)
    if (others?.size === 0) this.#running.delete(guest.uid)
    this.#listeners.get(guest)?.(end)
    this.#listeners.delete(guest)
  }

  of(uid: string): Guest[] {
    return [...(this.#running.get(uid) ?? [])]
  }

  all(): Guest[] {
    return [...this.#running.values()].flatMap(guests => [...guests])
  }

  on(host: string): Guest[] {
    return this.all().filter(guest => guest.host === host)
  }
}
