import type { Bench } from './harness.ts'
import { runParts } from './parts.ts'

/** What images promise, part by part; each is a bench of its own too. */
export const bench: Bench = {
  timeoutMs: 180 * 60_000,
  run: context =>
    runParts(['images-lazy', 'images-fan-out', 'images-push', 'images-peer'], context),
}
