import type { ProcessIdentity } from '../../base/process-identity.ts'
import type { Timing } from '../../cluster/fleet/timing.ts'
import type { FencedGuest, HeartbeatAnswer } from './protocol.ts'

/**
 * Checks without an answer after which the guardian counts as silent: one that was on time, or two
 * that came late, because with the first of those the answer may lie there and not be read yet.
 */
const silentAt = 2

interface Known extends FencedGuest {
  /** How often was asked before we heard of it: an older answer says nothing about it. */
  since: number
}

/**
 * The daemon's part of fencing, without clocks, sockets or processes: it keeps what the guardian
 * said last, and says whom to kill when the guardian, frozen, does not. A check that comes
 * late, because the daemon itself was frozen, kills nobody: what it knows is old, but the guardian
 * answers, and then it is not.
 */
export class GuardianSilence {
  readonly #guests = new Map<string, Known>()
  #asked = 0
  #answered = 0
  #asking = false
  #missed = 0
  #leaseDeadlineMs: number | undefined
  /** When the next check ought to be. */
  #nextMs = Number.POSITIVE_INFINITY

  /** A question is on its way. @returns its number */
  ask(): number {
    this.#asking = true
    return ++this.#asked
  }

  /** Whether an answer is being waited for. */
  isAsking(): boolean {
    return this.#asking
  }

  /** The guardian lives, and this is what it has. */
  answered(question: number, { lease, fenced }: HeartbeatAnswer): void {
    this.#asking = false
    this.#answered = question
    this.#missed = 0
    this.#leaseDeadlineMs = lease?.deadlineMs
    for (const [name, { since }] of this.#guests) if (since < question) this.#guests.delete(name)
    for (const guest of fenced) this.#guests.set(guest.name, { ...guest, since: question - 1 })
  }

  /** There will be no answer. */
  failed(): void {
    this.#asking = false
  }

  /**
   * A guest is being started or bound anew; until the guardian says more it has the time of the
   * lease. Without identity it has to be looked for.
   */
  expect(name: string, nowMs: number): void {
    const deadlineMs = this.#leaseDeadlineMs ?? nowMs
    this.#guests.set(name, { name, deadlineMs, since: this.#asked })
  }

  /** It was started. */
  started(name: string, identity: ProcessIdentity): void {
    const guest = this.#guests.get(name)
    if (guest !== undefined) guest.identity = identity
  }

  /** It has ended, was not started, or is fenced no more. */
  forget(name: string): void {
    this.#guests.delete(name)
  }

  /** What is known of a guest. */
  guest(name: string): FencedGuest | undefined {
    return this.#guests.get(name)
  }

  /** To be called at every check. @returns who must be killed now */
  check(nowMs: number, { fenceCheckMs }: Timing): FencedGuest[] {
    const isLate = nowMs > this.#nextMs + fenceCheckMs / 2
    if (this.#asked > this.#answered) this.#missed += isLate ? 1 : silentAt
    if (this.#missed < silentAt) return []
    return [...this.#guests.values()].filter(({ deadlineMs }) => nowMs >= deadlineMs)
  }

  /** Until the next check: a heartbeat, and short steps when a deadline is near. */
  nextCheckMs(nowMs: number, { heartbeatMs, fenceCheckMs }: Timing): number {
    const deadlines = [...this.#guests.values()].map(({ deadlineMs }) => deadlineMs)
    const soonMs = Math.min(...deadlines) - heartbeatMs - nowMs
    const waitMs = Math.min(heartbeatMs, Math.max(fenceCheckMs, soonMs))
    this.#nextMs = nowMs + waitMs
    return waitMs
  }
}
