import type { Bench } from './harness.ts'
import { runParts } from './parts.ts'

/** What a fleet promises, part by part; each is a bench of its own too. */
const parts = [
  'scheduler',
  'placements',
  'gossip',
  'fleet-idle',
  'fleet-newcomer',
  'fleet-failover',
]

/** All of them, one after the other. */
export const bench: Bench = {
  timeoutMs: 120 * 60_000,
  run: context => runParts(parts, context),
}
