import type { BootClock } from '../../base/boot-clock.ts'
import type { Clock, Timer } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import { type Log, messageOf } from '../../base/log.ts'
import { defaultTiming } from '../../cluster/fleet/timing.ts'
import { FenceDeadline, type LeaseState } from './deadline.ts'
import type { Renewer } from './lease-renewal.ts'
import type { GuestClaim, LeaseParameters } from './protocol.ts'

/** Who is killed. */
export interface FencingInit {
  /** Kills the process of that name, if it runs already. Called again until it has ended. */
  kill(name: string): void
  /** Makes what renews a lease; by default over HTTPS, which is loaded when it is needed. */
  renewer?(lease: LeaseParameters): Renewer
}

/** What fencing needs. */
export interface FencingComponents {
  clock: Clock
  bootClock: BootClock
  log: Log
}

/** The guardian's part of fencing: it renews the host's lease, and kills when it can not. */
export interface Fencing {
  /** Renews this lease from now on, in place of any other. @throws when the TLS files are no good */
  hold(lease: LeaseParameters): Promise<void>
  /** Renews no more. Fenced guests die by their deadline. */
  letGo(): void
  /** The daemon lives. @returns the lease that is held */
  heartbeat(): LeaseState | undefined
  /** The daemon will be silent so long. */
  expectSilence(forMs: number): void
  /**
   * Lets a guest start, or go on under another lease, as it was claimed.
   * @throws guardianFenced unless that lease is held, alive, and not about to end
   */
  admit(name: string, claim: GuestClaim): void
  /** The guest has ended. */
  release(name: string): void
  /** Boot time at which a guest must die; undefined when it is not fenced. */
  deadlineOf(name: string): number | undefined
  /** Whether a guest's time is over. */
  isDue(name: string): boolean
  /** Ends timers and connections. */
  stop(): void
}

/** Makes it; until a lease is held it has no timer, and has not loaded what renews one. */
export function createFencing(init: FencingInit, components: FencingComponents): Fencing {
  const { clock, bootClock, log } = components
  const deadline = new FenceDeadline()
  const told = new Set<string>()
  let renewer: Renewer | undefined
  let renewing = false
  let failing = false
  let checkMs = defaultTiming.fenceCheckMs
  let timer: Timer | undefined

  const killDue = (): void => {
    for (const name of deadline.due(bootClock.nowMs())) {
      if (!told.has(name)) log.error({ name }, 'the lease was not renewed: a guest is killed')
      told.add(name)
      init.kill(name)
    }
  }

  /** One round at a time. Never rejects. */
  const renew = async (revision: number, by: Renewer): Promise<void> => {
    renewing = true
    deadline.tried(bootClock.nowMs())
    const outcome = await by.renew()
    renewing = false
    if (by !== renewer) return
    if (outcome.kind === 'renewed') deadline.renewed(revision, outcome.sentMs)
    if (outcome.kind === 'gone') {
      deadline.gone(revision, bootClock.nowMs())
      log.warn({ revision }, 'the lease is gone')
    }
    const failed = outcome.kind === 'failed'
    if (failed && !failing) log.warn({ detail: outcome.detail }, 'the lease can not be renewed')
    if (failing && outcome.kind === 'renewed') log.info({ revision }, 'the lease is renewed again')
    failing = failed
  }

  const check = (): void => {
    killDue()
    const state = deadline.state()
    const due = !renewing && renewer !== undefined && deadline.renewalDue(bootClock.nowMs())
    if (state !== undefined && renewer !== undefined && due)
      void renew(state.leaseRevision, renewer)
    timer = undefined
    wake()
  }

  const wake = (): void => {
    const idle = deadline.state() === undefined && deadline.fenced().length === 0
    if (!idle) timer ??= clock.setTimer(checkMs, check)
  }

  return {
    async hold(lease) {
      const makeRenewer = init.renewer ?? (await loadRenewer(components))
      let next: Renewer
      try {
        next = makeRenewer(lease)
      } catch (error) {
        throw failure('guardianRefused', { method: 'lease', detail: messageOf(error) })
      }
      renewer?.close()
      renewer = next
      deadline.hold(lease.leaseRevision, lease.timing, bootClock.nowMs(), lease.grantedMs)
      checkMs = lease.timing.fenceCheckMs
      timer?.cancel()
      check()
    },
    letGo() {
      deadline.letGo()
      renewer?.close()
      renewer = undefined
    },
    heartbeat() {
      deadline.heard(bootClock.nowMs())
      return deadline.state()
    },
    expectSilence: forMs => deadline.expectSilence(forMs, bootClock.nowMs()),
    admit(name, { leaseRevision, fenced }) {
      if (!deadline.mayStart(leaseRevision, bootClock.nowMs())) {
        throw failure('guardianFenced', { name })
      }
      if (fenced) deadline.bind(name)
      else deadline.release(name)
    },
    release(name) {
      deadline.release(name)
      told.delete(name)
    },
    deadlineOf: name => deadline.deadlineOf(name),
    isDue: name => deadline.due(bootClock.nowMs()).includes(name),
    stop() {
      timer?.cancel()
      renewer?.close()
    },
  }
}

async function loadRenewer(
  components: FencingComponents,
): Promise<(lease: LeaseParameters) => Renewer> {
  const { createRenewer } = await import('./lease-renewal.ts')
  return lease => createRenewer(lease, components)
}
