import type { Clock } from '../../base/clock.ts'

/** How fast bytes come from a host while they are waited for. */
export interface LinkSpeed {
  /** Somebody waits for bytes from now on. @returns to be called when he ceases to */
  wait(): () => void
  /** So many bytes came over the wire. */
  came(bytes: number): void
  /** Whether packing chunks is likely to bring them sooner. */
  isSlow(): boolean
}

/** Below this, in bytes a second, zstd's work on both sides is paid for by what it saves. */
const slowBytesPerSecond = 50e6
/** So long is measured before it counts, so that a moment's noise does not. */
const spanMs = 200

/** Nothing is known at first, and the link is taken to be fast. */
export function createLinkSpeed(clock: Clock): LinkSpeed {
  let waiting = 0
  let sinceMs = 0
  let spentMs = 0
  let bytes = 0
  let bytesPerSecond = Number.POSITIVE_INFINITY
  const spend = (): void => {
    const nowMs = clock.monotonicMs()
    if (waiting > 0) spentMs += nowMs - sinceMs
    sinceMs = nowMs
  }
  return {
    wait() {
      spend()
      waiting++
      let done = false
      return () => {
        if (done) return
        done = true
        spend()
        waiting--
      }
    },
    came(count) {
      bytes += count
      spend()
      if (spentMs < spanMs) return
      bytesPerSecond = (bytes / spentMs) * 1000
      spentMs = 0
      bytes = 0
    },
    isSlow: () => bytesPerSecond < slowBytesPerSecond,
  }
}
