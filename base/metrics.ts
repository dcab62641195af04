import { Registry } from 'prom-client'

export { Counter, Gauge, Histogram, Registry } from 'prom-client'

/** A registry of its own for each daemon, never the library's global one: several run in one test. */
export function createMetrics(): Registry {
  return new Registry()
}
