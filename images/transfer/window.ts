/** How much one source is asked for at once: as much as comes in a moment, whatever its speed. */
export interface Window {
  /** Bytes. */
  bytes(): number
  /** How long chunks take from asking to coming, in milliseconds, smoothed. */
  expectedMs(): number
  /** A request ended whole. @param aimMs how long one should take */
  took(durationMs: number, aimMs: number): void
  /** The source failed: it begins with little again. */
  reset(): void
}

const MiB = 1024 * 1024
const leastBytes = 1 * MiB
const firstBytes = 1 * MiB

/**
 * Grows while answers come sooner than the aim and shrinks while they come later: what waits in
 * queues of the network stays short, so that something urgent overtakes nearly all of it.
 */
export function createWindow(mostBytes: number): Window {
  let bytes = firstBytes
  let expectedMs = 500
  return {
    bytes: () => bytes,
    expectedMs: () => expectedMs,
    took(durationMs, aimMs) {
      expectedMs += (durationMs - expectedMs) * 0.3
      const factor = Math.max(0.7, Math.min(1.5, aimMs / Math.max(1, durationMs)))
      bytes = Math.max(leastBytes, Math.min(mostBytes, bytes * factor))
    },
    reset() {
      bytes = leastBytes
    },
  }
}
