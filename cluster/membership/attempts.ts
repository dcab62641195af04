import type { Clock } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'

/** Counts failed attempts by where they come from, so that nobody can go on trying. */
export interface Attempts {
  /** @throws joinAttempts when too many of this source have failed within a minute */
  check(source: string): void
  failed(source: string): void
}

const windowMs = 60_000

/**
 * Each source may fail `limits.joinAttempts` times a minute. Only so many sources are remembered:
 * when one too many comes, the one that was first is forgotten.
 */
export function createAttempts(
  limits: Pick<Limits, 'joinAttempts' | 'joinSources'>,
  clock: Clock,
): Attempts {
  const sources = new Map<string, { failures: number; sinceMs: number }>()
  const current = (source: string) => {
    const found = sources.get(source)
    if (found === undefined || clock.monotonicMs() - found.sinceMs < windowMs) return found
    sources.delete(source)
    return undefined
  }
  return {
    check(source) {
      const failures = current(source)?.failures ?? 0
      if (failures >= limits.joinAttempts) throw failure('joinAttempts', { address: source })
    },
    failed(source) {
      const found = current(source)
      if (found !== undefined) {
        found.failures++
        return
      }
      sources.set(source, { failures: 1, sinceMs: clock.monotonicMs() })
      const [oldest] = sources.keys()
      if (sources.size > limits.joinSources && oldest !== undefined) sources.delete(oldest)
    },
  }
}
