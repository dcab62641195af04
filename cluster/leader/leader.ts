import type { Clock } from '../../base/clock.ts'
import type { Log } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import type { Timing } from '../fleet/timing.ts'
import { type Leadership, startLeadership } from './leadership.ts'
import { runTerm, type TermInit } from './term.ts'
import type { TermComponents } from './term-context.ts'

/** How a host takes part in leading the fleet. */
export interface LeaderInit extends TermInit {
  /** What else the leader has to do, until the signal is aborted. */
  beside?(signal: AbortSignal): Promise<void>
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
    {
      host,
      timing,
      async lead(term) {
        const over = new AbortController()
        const signal = AbortSignal.any([term.signal, over.signal])
        const beside = init.beside?.(signal)
        await runTerm(term, init, components).finally(() => over.abort())
        await beside
      },
    },
    components,
  )
}
