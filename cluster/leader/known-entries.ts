import type { Entry } from '../store/store.ts'

/** What is known of some keys: from lists, watches, and from transactions before these. */
export interface KnownEntries {
  get(key: string): Entry | undefined
  all(): Iterable<Entry>
  /** The watch told how a key is at a revision. @returns whether it was news */
  watched(key: string, entry: Entry | undefined, revision: number): boolean
  /** All keys at a revision; what is known from later ones stays. @returns keys with news */
  listed(entries: readonly Entry[], revision: number): string[]
  /** A transaction showed how a key is at a revision. @returns whether it was news */
  learned(key: string, entry: Entry | undefined, revision: number): boolean
}

/** Nothing is known yet. What is older than what is known never replaces it. */
export function createKnownEntries(): KnownEntries {
  const known = new Map<string, Entry>()
  /** Keys that a transaction showed to be gone, until the watch says so: since which revision. */
  const gone = new Map<string, number>()

  const put = (entry: Entry): boolean => {
    const { key, modRevision } = entry
    const newest = Math.max(known.get(key)?.modRevision ?? 0, gone.get(key) ?? 0)
    if (modRevision <= newest) return false
    gone.delete(key)
    known.set(key, entry)
    return true
  }
  const remove = (key: string, revision: number): boolean => {
    const before = known.get(key)
    if (before === undefined || before.modRevision > revision) return false
    return known.delete(key)
  }

  return {
    get: key => known.get(key),
    all: () => known.values(),
    watched(key, entry, revision) {
      if (entry !== undefined) return put(entry)
      if ((gone.get(key) ?? Number.POSITIVE_INFINITY) <= revision) gone.delete(key)
      return remove(key, revision)
    },
    listed(entries, revision) {
      for (const [key, since] of gone) if (since <= revision) gone.delete(key)
      const there = new Set(entries.map(({ key }) => key))
      const news = [...known.keys()].filter(key => !there.has(key) && remove(key, revision))
      for (const entry of entries) if (put(entry)) news.push(entry.key)
      return news
    },
    learned(key, entry, revision) {
      if (entry !== undefined) return put(entry)
      if (!remove(key, revision)) return false
      gone.set(key, revision)
      return true
    },
  }
}
