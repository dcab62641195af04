import { Counter, Gauge, type Registry } from '../../base/metrics.ts'
import type { FillProgress } from './transfers.ts'

/** What is counted about the filling of images. */
export interface TransferMetrics {
  /** Chunks came: what a filling had from each kind of source before, and has now. */
  came(before: FillProgress['from'], now: FillProgress['from']): void
  sourceWasRotten(): void
  threadDied(): void
}

/** Registers the metrics; without a registry nothing is counted. */
export function createTransferMetrics(
  registry: Registry | undefined,
  countFillings: () => number,
): TransferMetrics {
  if (registry === undefined) {
    return { came: () => {}, sourceWasRotten: () => {}, threadDied: () => {} }
  }
  const registers = [registry]
  new Gauge({
    name: 'macfleet_images_filling',
    help: 'Images that are on their way to this host.',
    registers,
    collect() {
      this.set(countFillings())
    },
  })
  const bytes = new Counter({
    name: 'macfleet_image_fetched_bytes_total',
    help: 'Plain bytes of chunks that were fetched and verified, by kind of source.',
    labelNames: ['source'] as const,
    registers,
  })
  const rotten = new Counter({
    name: 'macfleet_image_rotten_sources_total',
    help: 'Hosts that are not asked any more because they served what did not match its digest.',
    registers,
  })
  const deaths = new Counter({
    name: 'macfleet_image_transfer_thread_deaths_total',
    help: 'Times that the thread which fills images died and was started again.',
    registers,
  })
  return {
    came(before, now) {
      for (const source of ['peer', 'registry', 'library'] as const) {
        const more = now[source] - before[source]
        if (more > 0) bytes.inc({ source }, more)
      }
    },
    sourceWasRotten: () => rotten.inc(),
    threadDied: () => deaths.inc(),
  }
}
