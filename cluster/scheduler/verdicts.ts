import { objections } from './objections.ts'
import { fixedParts } from './score.ts'
import type { HostView, Needs } from './types.ts'

const unknown = Number.NaN

/** What hosts are to machines with the same needs, apart from room and copies. */
export interface Verdicts {
  /**
   * By slot: the part of a host's score that does not change as machines come and go; -Infinity
   * for no; NaN, or nothing, where it is not known yet.
   */
  readonly known: Float64Array
  /** Finds out what is not known. */
  judge(slot: number): number
}

/** The part of a host's score that does not change as machines come and go; -Infinity for no. */
export function verdictOn(verdicts: Verdicts, slot: number): number {
  const known = verdicts.known[slot] ?? unknown
  return Number.isNaN(known) ? verdicts.judge(slot) : known
}

/** Verdicts that are remembered, because most machines need what others needed before. */
export interface VerdictCache {
  for(needs: Needs): Verdicts
  /** What is known of a host is not so any more. */
  forget(slot: number): void
}

/**
 * Nothing is remembered yet. Verdicts are made when they are first asked for, so a host without
 * room costs nothing.
 * @param classesMost how many different needs are remembered; the one not used for longest goes
 */
export function createVerdictCache(
  at: (slot: number) => HostView | undefined,
  classesMost: number,
): VerdictCache {
  const classes = new Map<string, Verdicts>()
  const keys = new WeakMap<Needs, string>()

  const keyOf = (needs: Needs): string => {
    const known = keys.get(needs)
    if (known !== undefined) return known
    const key = verdictKey(needs)
    keys.set(needs, key)
    return key
  }
  const judge = (needs: Needs, slot: number): number => {
    const host = at(slot)
    if (host === undefined || objections(needs, host).length > 0) return -Infinity
    const { image, taints } = fixedParts(needs, host)
    return image + taints
  }
  const create = (needs: Needs): Verdicts => {
    let known = new Float64Array(64).fill(unknown)
    return {
      get known() {
        return known
      },
      judge(slot) {
        if (slot >= known.length) {
          const larger = new Float64Array(2 ** Math.ceil(Math.log2(slot + 1))).fill(unknown)
          larger.set(known)
          known = larger
        }
        const verdict = judge(needs, slot)
        known[slot] = verdict
        return verdict
      },
    }
  }

  return {
    for(needs) {
      const key = keyOf(needs)
      const found = classes.get(key) ?? create(needs)
      // Set anew, it is the last in the map's order: the first is the one to go.
      classes.delete(key)
      classes.set(key, found)
      const [oldest] = classes.keys()
      if (classes.size > classesMost && oldest !== undefined) classes.delete(oldest)
      return found
    },
    forget(slot) {
      for (const { known } of classes.values()) if (slot < known.length) known[slot] = unknown
    },
  }
}

/** The same for machines whose verdicts are the same. */
function verdictKey(needs: Needs): string {
  const { arch, cpuFlags = [], hostSelector = {}, tolerations = [], image } = needs
  const labels = Object.entries(hostSelector).sort(([one], [other]) => (one < other ? -1 : 1))
  return JSON.stringify([arch, cpuFlags, labels, tolerations, image?.digest, image?.bytes])
}
