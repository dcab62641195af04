import { Counter, Gauge, Histogram, type Registry } from '../../base/metrics.ts'

/** What is counted of leading; made once for a daemon, whatever terms it has. */
export interface LeaderMetrics {
  /** This host begins or ceases to lead. */
  leads(now: boolean): void
  /** A machine was given to a host, so long after the leader first saw it wait. */
  placed(afterMs: number): void
  /** A placement was taken away from a host. */
  lost(cause: string): void
  /** So many machines wait for a host. */
  waiting(count: number): void
}

/** Makes the counters. */
export function createLeaderMetrics(registry: Registry): LeaderMetrics {
  const registers = [registry]
  const leader = new Gauge({
    name: 'macfleet_leader',
    help: 'Whether this host leads the fleet.',
    registers,
  })
  const terms = new Counter({
    name: 'macfleet_leader_terms_total',
    help: 'Times that this host began to lead.',
    registers,
  })
  const seconds = new Histogram({
    name: 'macfleet_placement_seconds',
    help: 'From when the leader saw a machine wait until its placement was written.',
    buckets: [0.005, 0.02, 0.1, 0.5, 1, 5, 30, 300],
    registers,
  })
  const losses = new Counter({
    name: 'macfleet_placements_lost_total',
    help: 'Placements taken away from a host, by cause.',
    labelNames: ['cause'],
    registers,
  })
  const waiting = new Gauge({
    name: 'macfleet_placement_queue',
    help: 'Machines that wait for a host, while this host leads.',
    registers,
  })
  return {
    leads(now) {
      leader.set(now ? 1 : 0)
      if (now) terms.inc()
      else waiting.set(0)
    },
    placed: afterMs => seconds.observe(afterMs / 1000),
    lost: cause => losses.inc({ cause }),
    waiting: count => waiting.set(count),
  }
}
