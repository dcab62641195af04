import type { Timing } from '../../cluster/fleet/timing.ts'

/** One life of the host's lease, and until when it covers guests. */
interface Lease {
  revision: number
  timing: Timing
  /** When the grant, or the last renewal that succeeded, was sent; undefined when neither is known. */
  sentMs?: number
  /** When etcd was first heard to have it no more. */
  goneMs?: number
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
 * Whether a lease went before its time. No etcd should do that; one whose leader was frozen and
 * goes on ends all leases that it believes expired (etcd issues 12528 and 15247; seen with 3.4.23).
 */
function wentEarly({ goneMs, sentMs = 0, timing }: Lease): boolean {
  return goneMs !== undefined && goneMs < sentMs + timing.hostLeaseTtlMs
}

/**
 * Boot time at which guests under a lease must die; undefined while it was never renewed. When it
 * went before its time, the others may have seen its key gone since the last renewal, and act
 * `graceMs` later.
 */
function endOf(lease: Lease): number | undefined {
  const { sentMs, timing } = lease
  if (sentMs === undefined) return undefined
  const { fenceMs, graceMs } = timing
  return sentMs + (wentEarly(lease) ? Math.min(fenceMs, untilKill(graceMs, timing)) : fenceMs)
}

/**
 * The guardian's part of fencing, without clocks, sockets or processes: it is told what happened
 * and when (boot time in milliseconds), and says whether to renew, who may start and who must die.
 *
 * Each fenced guest is bound to a lease of the host. A new lease takes over the guests of the one
 * before only if its key is there before their deadline: until then nobody acts on the absence of
 * the old key, and from there on it is the new life that must have ended before anybody does (the
 * leader compares the life key). A guest that was not taken over dies.
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
   * @param grantedMs boot time just before a new lease was asked for, whose key is there by now;
   *   undefined for one that was found
   */
  hold(revision: number, timing: Timing, nowMs: number, grantedMs?: number): void {
    this.#heardMs = nowMs
    this.#silentUntilMs = Number.NEGATIVE_INFINITY
    const before = this.#current
    if (before?.revision === revision) return
    const next = { revision, timing, sentMs: grantedMs }
    this.#current = next
    this.#triedMs = Number.NEGATIVE_INFINITY
    if (before === undefined || grantedMs === undefined) return
    before.goneMs ??= grantedMs
    // By their deadline nobody has acted yet; later somebody may have, before the new key was there.
    if (nowMs >= (endOf(before) ?? nowMs)) return
    for (const [name, lease] of this.#guests) if (lease === before) this.#guests.set(name, next)
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
   * Whether what was claimed under a lease may start. Well before the deadline: what starts
   * later is shot at birth.
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
