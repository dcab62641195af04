/** How many bytes a second came lately. */
export interface Meter {
  add(bytes: number, nowMs: number): void
  perSecond(nowMs: number): number
}

const slotMs = 250

/** @param slots quarters of a second that count */
export function createMeter(slots = 12): Meter {
  const sums = new Float64Array(slots)
  let current: number | undefined
  let first = 0
  const advance = (nowMs: number): number => {
    const slot = Math.floor(nowMs / slotMs)
    if (current === undefined) {
      current = slot
      first = nowMs
    }
    for (let step = 0; current < slot && step < slots; step++) sums[++current % slots] = 0
    current = slot
    return slot % slots
  }
  return {
    add(bytes, nowMs) {
      const slot = advance(nowMs)
      sums[slot] = (sums[slot] ?? 0) + bytes
    },
    perSecond(nowMs) {
      advance(nowMs)
      const sum = sums.reduce((all, bytes) => all + bytes, 0)
      const spanMs = Math.min(nowMs - first, slots * slotMs)
      return (sum * 1000) / Math.max(slotMs, spanMs)
    },
  }
}
