import type { Clock } from '../../base/clock.ts'
import type { Log } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import type { Timing } from '../fleet/timing.ts'
import { type Leadership, startLeadership } from './leadership.ts'
import { runTerm, type TermInit } from './term.ts'
import type { TermComponents } from './term-context.ts'

/** How a host takes part in leading the fleet. */
export interface LeaderInit extends TermInit {
  host: string
  timing: Timing
}

/** What it needs. */
export interface LeaderComponents extends TermComponents {
  clock: Clock
  random: Random
  log: Log
}

/** Campaigns, and leads the fleet whenever this host is elected, until it is stopped. */
export function startLeader(init: LeaderInit, components: LeaderComponents): Leadership {
  const { host, timing } = init
  return startLeadership(
    { host, timing, lead: term => runTerm(term, init, components) },
    components,
  )
}
