import type { Timing } from '../../cluster/fleet/timing.ts'

/** One life of the host's lease, and until when it covers guests. */
interface Lease {
  revision: number
  timing: Timing
  /** When the last renewal that succeeded was sent; undefined before the first one. */
  sentMs?: number
  /** When etcd was first heard to have it no more. */
  goneMs?: number
  /** The one after it, when that came to be before the others could act on the end of this one. */
  carriedBy?: Lease
}

/** What is known of the lease that is held. */
export interface LeaseState {
  leaseRevision: number
  /** Boot time at which the last renewal that succeeded was sent. */
  renewedMs?: number
  /** Boot time at which every fenced guest under it is killed, unless it is renewed before. */
  deadlineMs?: number
  /** Etcd has it no more: it is never renewed again, a new one is needed. */
  gone: boolean
}

/** What is left of a span of the others' clocks, for the time that a kill takes. */
function untilKill(spanMs: number, { clockDrift, killMs, fenceCheckMs }: Timing): number {
  return spanMs * (1 - clockDrift) - killMs - fenceCheckMs
}

/**
 * Whether a lease went before its time. No etcd should do that; one whose leader was frozen and goes
 * on ends all leases that it believes expired (etcd issues 12528 and 15247; seen with 3.4.23).
 */
function wentEarly({ goneMs, sentMs = 0, timing }: Lease): boolean {
  return goneMs !== undefined && goneMs < sentMs + timing.hostLeaseTtlMs
}

/** Whether nobody can have acted on the end of a lease before a new key was there. */
function isInTime(before: Lease, madeMs: number): boolean {
  const { sentMs, timing } = before
  if (sentMs === undefined) return false
  const goneMs = wentEarly(before) ? sentMs : sentMs + timing.hostLeaseTtlMs
  return madeMs < goneMs + timing.graceMs * (1 - timing.clockDrift)
}

/**
 * Boot time at which guests under a lease must die; undefined while it was never renewed. When it
 * went before its time, the others may have seen its key gone since the last renewal, and act
 * `graceMs` later. When it is carried its guests live until shortly before the next key can go.
 */
function endOf(lease: Lease): number | undefined {
  const { sentMs, timing, carriedBy } = lease
  if (sentMs === undefined) return undefined
  const { fenceMs, graceMs, hostLeaseTtlMs } = timing
  const own = sentMs + (wentEarly(lease) ? Math.min(fenceMs, untilKill(graceMs, timing)) : fenceMs)
  if (carriedBy?.sentMs === undefined || wentEarly(carriedBy)) return own
  return Math.max(own, carriedBy.sentMs + untilKill(hostLeaseTtlMs, timing))
}

/**
 * The guardian's part of fencing, without clocks, sockets or processes: it is told what happened
 * and when (boot time in milliseconds), and says whether to renew, who may start and who must die.
 *
 * Each fenced guest is bound to the lease under which it was claimed, and a new lease gives it the
 * whole time only when it is claimed under that one, which fails when the others have acted. Until
 * then it is carried, if the new key came to be before the others could act on the absence of the old
 * one: while a key is there they do nothing, so a carried guest dies before the new key can go. A
 * guest that can not be carried keeps its old deadline.
 *
 * A lease keeps the spans with which it came: etcd gave it a time to live that fits them and no
 * others.
 */
export class FenceDeadline {
  readonly #guests = new Map<string, Lease>()
  #current: Lease | undefined
  #heardMs = Number.NEGATIVE_INFINITY
  #silentUntilMs = Number.NEGATIVE_INFINITY
  #triedMs = Number.NEGATIVE_INFINITY

  /**
   * The daemon holds this lease from now on; told again, it changes nothing about it.
   * @param madeMs boot time at which the new key was known to be there; undefined when it was found
   */
  hold(revision: number, timing: Timing, nowMs: number, madeMs?: number): void {
    this.#heardMs = nowMs
    this.#silentUntilMs = Number.NEGATIVE_INFINITY
    const before = this.#current
    if (before?.revision === revision) return
    this.#current = { revision, timing }
    this.#triedMs = Number.NEGATIVE_INFINITY
    if (before === undefined || madeMs === undefined) return
    before.goneMs ??= madeMs
    if (isInTime(before, madeMs)) before.carriedBy = this.#current
  }

  /** No lease is held any more. Who is bound to one dies by its deadline all the same. */
  letGo(): void {
    this.#current = undefined
  }

  /** The daemon lives. */
  heard(nowMs: number): void {
    this.#heardMs = nowMs
  }

  /**
   * The daemon will be silent for a while, and that is as it should be. Neither the lease nor a
   * deadline has to be longer for that: both go on with each renewal, and it is only the patience
   * with the daemon that grows, on which the safety of a replacement does not rest.
   */
  expectSilence(forMs: number, nowMs: number): void {
    const mostMs = this.#current?.timing.plannedSilenceMostMs ?? 0
    this.#silentUntilMs = nowMs + Math.min(forMs, mostMs)
  }

  /** Whether the next round of renewals is to begin now. */
  renewalDue(nowMs: number): boolean {
    const lease = this.#current
    if (lease === undefined || lease.goneMs !== undefined) return false
    const { daemonSilenceMs, renewalPeriodMs } = lease.timing
    const patientUntilMs = Math.max(this.#heardMs + daemonSilenceMs, this.#silentUntilMs)
    return nowMs < patientUntilMs && nowMs >= this.#triedMs + renewalPeriodMs
  }

  /** A round of renewals begins. */
  tried(nowMs: number): void {
    this.#triedMs = nowMs
  }

  /** A renewal succeeded; `sentMs` is when it was sent, and nothing later may be taken for it. */
  renewed(revision: number, sentMs: number): void {
    const lease = this.#current
    if (lease?.revision !== revision || lease.goneMs !== undefined) return
    lease.sentMs = Math.max(sentMs, lease.sentMs ?? sentMs)
  }

  /** Etcd says that the lease is no more. */
  gone(revision: number, nowMs: number): void {
    if (this.#current?.revision === revision) this.#current.goneMs ??= nowMs
  }

  /**
   * Whether what was claimed under a lease may start. Well before the deadline: what starts later is
   * shot at birth.
   */
  mayStart(revision: number, nowMs: number): boolean {
    const lease = this.#current
    if (lease?.revision !== revision || lease.goneMs !== undefined) return false
    const { killMs, fenceCheckMs } = lease.timing
    return nowMs < (endOf(lease) ?? nowMs) - killMs - fenceCheckMs
  }

  /** From now on the guest lives as long as the lease that is held. Ask `mayStart` first. */
  bind(name: string): void {
    if (this.#current !== undefined) this.#guests.set(name, this.#current)
  }

  /** The guest has ended, or is not to be killed. */
  release(name: string): void {
    this.#guests.delete(name)
  }

  /** When a guest must die; undefined when it is not fenced. */
  deadlineOf(name: string): number | undefined {
    const lease = this.#guests.get(name)
    return lease && endOf(lease)
  }

  /** All guests that are fenced. */
  fenced(): string[] {
    return [...this.#guests.keys()]
  }

  /** The guests whose time is over. They stay here until they are released. */
  due(nowMs: number): string[] {
    return this.fenced().filter(name => nowMs >= (this.deadlineOf(name) ?? nowMs))
  }

  /** The lease that is held. */
  state(): LeaseState | undefined {
    const lease = this.#current
    if (lease === undefined) return undefined
    return {
      leaseRevision: lease.revision,
      renewedMs: lease.sentMs,
      deadlineMs: endOf(lease),
      gone: lease.goneMs !== undefined,
    }
  }
}
