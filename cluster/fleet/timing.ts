import { assert } from '../../base/errors.ts'

/**
 * Every span that the safety of the fleet rests on, in milliseconds. How they hang together is in
 * `checkTiming`, and why that is enough in docs/ARCHITECTURE.md ("Fencing").
 */
export interface Timing {
  /**
   * Life of a host's lease (the design's TTL): so long after its last renewal a host counts as
   * silent. Longer: a lost host is noticed later. Shorter: F must be shorter too.
   */
  hostLeaseTtlMs: number
  /** The guardian renews the lease so often. */
  renewalPeriodMs: number
  /** What one endpoint of etcd may take to answer a renewal before the next one is tried. */
  renewalTimeoutMs: number
  /** Voters of etcd that are tried in one renewal. */
  endpointsMost: number
  /** The longest election of etcd that must end no guest: two rounds of its own timeout and more. */
  electionMostMs: number
  /**
   * The design's F: so long after the last successful renewal was *sent* every guest that may be
   * replaced is killed, by the guardian, or by the daemon when the guardian is silent.
   */
  fenceMs: number
  /** How often the boot clock is read for that, because timers sleep when the machine does. */
  fenceCheckMs: number
  /** From the decision to kill until no guest runs any more. */
  killMs: number
  /** The leader acts so long after it saw the host's lease key gone; a new leader counts anew. */
  graceMs: number
  /** What two clocks may differ by over a span, as a fraction of it. */
  clockDrift: number
  /** The design's D: of so much silence of the daemon, unplanned, the guardian renews no more. */
  daemonSilenceMs: number
  /** The daemon says so often that it lives. */
  heartbeatMs: number
  /** The longest silence that a daemon may announce (a planned restart). */
  plannedSilenceMostMs: number
  /** Life of the leader's lease, and how often it is renewed. */
  leaderLeaseTtlMs: number
  leaderRenewalMs: number
}

/** The spans of a fleet in service. */
export const defaultTiming: Timing = {
  hostLeaseTtlMs: 5_000,
  renewalPeriodMs: 1_000,
  renewalTimeoutMs: 700,
  endpointsMost: 3,
  electionMostMs: 3_000,
  fenceMs: 6_500,
  fenceCheckMs: 100,
  killMs: 700,
  graceMs: 2_500,
  clockDrift: 0.01,
  daemonSilenceMs: 20_000,
  heartbeatMs: 1_000,
  plannedSilenceMostMs: 300_000,
  leaderLeaseTtlMs: 2_000,
  leaderRenewalMs: 500,
}

/**
 * Fails unless the spans keep a machine from running twice, and a healthy guest from being killed.
 *
 * - Never twice: the leader sees the lease key gone at the earliest TTL after the last successful
 *   renewal was sent, and waits `graceMs` more. By then the guests must be dead.
 * - Never the healthy: the host must outlast an election of etcd, the wait for the next renewal,
 *   and a renewal that tries every endpoint.
 */
export function checkTiming(timing: Timing): void {
  const { hostLeaseTtlMs, graceMs, fenceMs, killMs, fenceCheckMs } = timing
  const replacedMs = hostLeaseTtlMs + graceMs
  const deadMs = fenceMs + fenceCheckMs + killMs + timing.clockDrift * replacedMs
  assert(replacedMs > deadMs, `${replacedMs} ms until replaced must exceed ${deadMs} ms until dead`)
  const retryMs = timing.endpointsMost * timing.renewalTimeoutMs
  const outlastMs = timing.electionMostMs + timing.renewalPeriodMs + retryMs
  assert(fenceMs > outlastMs, `fenceMs must exceed the ${outlastMs} ms of an election and a retry`)
  assert(timing.daemonSilenceMs > 2 * timing.heartbeatMs, 'a heartbeat may be lost')
  assert(timing.leaderLeaseTtlMs > 2 * timing.leaderRenewalMs, 'a renewal may be lost')
}
