import { Counter, Gauge, type Registry } from '../base/metrics.ts'

/** What is counted about images. */
export interface ImageMetrics {
  importEnded(outcome: 'imported' | 'failed'): void
  /** An image was removed to make room. */
  evicted(): void
}

/** Registers the metrics; without a registry nothing is counted. */
export function createImageMetrics(
  registry: Registry | undefined,
  countImages: () => number,
): ImageMetrics {
  if (registry === undefined) return { importEnded: () => {}, evicted: () => {} }
  const registers = [registry]
  new Gauge({
    name: 'macfleet_images',
    help: 'Images on this host.',
    registers,
    collect() {
      this.set(countImages())
    },
  })
  const evictions = new Counter({
    name: 'macfleet_images_evicted_total',
    help: 'Images removed to make room.',
    registers,
  })
  const imports = new Counter({
    name: 'macfleet_image_imports_total',
    help: 'Imports of images that ended, by outcome.',
    labelNames: ['outcome'] as const,
    registers,
  })
  return {
    importEnded: outcome => imports.inc({ outcome }),
    evicted: () => evictions.inc(),
  }
}
