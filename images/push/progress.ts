import type { Clock } from '../../base/clock.ts'
import { createMeter } from '../transfer/meter.ts'

/** How far a push is. */
export interface PushProgress {
  /** Plain bytes of new chunks that are with the registry, and their sum. */
  doneBytes: number
  totalBytes: number
  /** Bytes that went over the network for them, those that were sent again included. */
  sentBytes: number
  /** Of these, a second, over the last few seconds. */
  bytesPerSecond: number
}

/** A pack, as the meter counts it. */
export interface MeteredPack {
  plainBytes: number
  sizeBytes: number
}

/** Counts what a push sends. */
export interface PushMeter {
  /**
   * So many bytes of a pack are with the registry, fewer than before after a cut; its plain bytes
   * count by that share.
   */
  sending(pack: MeteredPack, atBytes: number): void
  /** The pack is with the registry. */
  finished(pack: MeteredPack): void
}

/** A meter that has counted nothing; packs come one after another. */
export function createPushMeter(
  totalBytes: number,
  clock: Clock,
  onProgress: (progress: PushProgress) => void,
): PushMeter {
  const rate = createMeter()
  let wholeBytes = 0
  let sentBytes = 0
  let packBytes = 0
  const tell = (doneBytes: number): void => {
    const bytesPerSecond = Math.round(rate.perSecond(clock.monotonicMs()))
    onProgress({ doneBytes, totalBytes, sentBytes, bytesPerSecond })
  }
  return {
    sending({ plainBytes, sizeBytes }, atBytes) {
      const bytes = Math.max(0, atBytes - packBytes)
      rate.add(bytes, clock.monotonicMs())
      sentBytes += bytes
      packBytes = atBytes
      tell(Math.floor(wholeBytes + plainBytes * Math.min(1, packBytes / sizeBytes)))
    },
    finished({ plainBytes }) {
      wholeBytes += plainBytes
      packBytes = 0
      tell(wholeBytes)
    },
  }
}
