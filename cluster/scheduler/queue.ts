import type { Wanted } from './types.ts'

/** Machines that want a place, who is first first. */
export interface Queue {
  all(): readonly Wanted[]
  /** Adds it, or replaces what was known of it. */
  set(wanted: Wanted): void
  delete(uid: string): void
}

/** Who is placed first: the higher priority, then who has waited longer. Never 0 for two. */
export function placedFirst(one: Wanted, other: Wanted): number {
  const order = other.priority - one.priority || one.sinceMs - other.sinceMs
  return order || (one.uid < other.uid ? -1 : one.uid > other.uid ? 1 : 0)
}

/** Nobody waits. */
export function createQueue(): Queue {
  const byUid = new Map<string, Wanted>()
  const sorted: Wanted[] = []

  /** Where it is, or would be. */
  const find = (wanted: Wanted): number => {
    let low = 0
    let high = sorted.length
    while (low < high) {
      const middle = (low + high) >>> 1
      const other = sorted[middle]
      if (other !== undefined && placedFirst(other, wanted) < 0) low = middle + 1
      else high = middle
    }
    return low
  }
  const remove = (uid: string): void => {
    const known = byUid.get(uid)
    if (known === undefined) return
    sorted.splice(find(known), 1)
    byUid.delete(uid)
  }

  return {
    all: () => sorted,
    set(wanted) {
      remove(wanted.uid)
      sorted.splice(find(wanted), 0, wanted)
      byUid.set(wanted.uid, wanted)
    },
    delete: remove,
  }
}
