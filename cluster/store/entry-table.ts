import type { Entry, ListOptions } from './store.ts'

/** Entries by key, sorted by key. Keys are ASCII, so JavaScript's order is that of their bytes. */
export interface EntryTable {
  get(key: string): Entry | undefined
  /** Every entry whose key begins with `prefix`, in order. */
  withPrefix(prefix: string): Entry[]
  /** A page of those, and whether there are more. */
  page(prefix: string, options: ListOptions): { entries: Entry[]; more: boolean }
  set(entry: Entry): void
  remove(key: string): void
  /** What all keys and values weigh; see entryBytes. */
  bytes(): number
}

/** What an entry weighs against `limits.storeBytes`: its key and its value as JSON, in bytes. */
export function entryBytes(entry: Entry): number {
  return entry.key.length + Buffer.byteLength(JSON.stringify(entry.value))
}

/** Makes an empty table. */
export function createEntryTable(): EntryTable {
  const entries = new Map<string, Entry>()
  const keys: string[] = []
  let totalBytes = 0

  /** The index of the first key that is not before `key`. */
  const lowerBound = (key: string): number => {
    let low = 0
    let high = keys.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((keys[middle] ?? '') < key) low = middle + 1
      else high = middle
    }
    return low
  }

  const page = (prefix: string, { limit, afterKey }: ListOptions) => {
    const from = afterKey !== undefined && afterKey > prefix ? afterKey : prefix
    const found: Entry[] = []
    for (let index = lowerBound(from); index < keys.length; index++) {
      const entry = entries.get(keys[index] ?? '')
      if (entry === undefined || !entry.key.startsWith(prefix)) break
      if (entry.key === afterKey) continue
      if (found.length === limit) return { entries: found, more: true }
      found.push(entry)
    }
    return { entries: found, more: false }
  }

  const forget = (entry: Entry): void => {
    totalBytes -= entryBytes(entry)
    entries.delete(entry.key)
  }

  return {
    get: key => entries.get(key),
    withPrefix: prefix => page(prefix, {}).entries,
    page,
    set(entry) {
      const before = entries.get(entry.key)
      if (before === undefined) keys.splice(lowerBound(entry.key), 0, entry.key)
      else forget(before)
      entries.set(entry.key, entry)
      totalBytes += entryBytes(entry)
    },
    remove(key) {
      const before = entries.get(key)
      if (before === undefined) return
      forget(before)
      keys.splice(lowerBound(key), 1)
    },
    bytes: () => totalBytes,
  }
}
