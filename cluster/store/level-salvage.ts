import { Damage, type Meta, toBatch, toEntry, toLease, toMeta, unseal } from './level-format.ts'
import type { Lease } from './state.ts'
import type { Entry, WatchEvent } from './store.ts'

/**
 * A lease whose record is lost, but which keys still name, ends after this long if nobody renews
 * it.
 */
const lostLeaseTtlMs = 60_000

/** What a damaged store still says. */
export interface Salvage {
  storeId: string | undefined
  entries: Entry[]
  leases: Lease[]
  /** The highest revision that any record names. */
  newestRevision: number
  /** Records whose text is not what was written. */
  unreadable: number
  /** How many entries there should be, as far as is known. */
  expectedEntries: number | undefined
}

/**
 * Puts together the newest state that readable records tell: an entry that is lost or old is taken
 * from the history where that has it, one that the history saw deleted does not come back.
 */
export function salvage(records: Iterable<readonly [string, string]>): Salvage {
  let meta: Meta | undefined
  let unreadable = 0
  let newestRevision = 0
  const newest = new Map<string, { revision: number; entry: Entry | undefined }>()
  const leases = new Map<string, Lease>()

  const learn = (key: string, revision: number, entry: Entry | undefined): void => {
    newestRevision = Math.max(newestRevision, revision)
    const known = newest.get(key)
    if (known === undefined || known.revision < revision) newest.set(key, { revision, entry })
  }
  const learnEvent = ({ key, revision, entry }: WatchEvent): void => learn(key, revision, entry)
  const read = (key: string, text: string): void => {
    const value = unseal(key, text)
    if (key.startsWith('m!')) meta = toMeta(value)
    else if (key.startsWith('h!')) toBatch(value).events.forEach(learnEvent)
    else if (key.startsWith('l!')) {
      const lease = toLease(value)
      leases.set(lease.id, lease)
    } else if (key.startsWith('e!')) {
      const entry = toEntry(value)
      learn(entry.key, entry.modRevision, entry)
    } else throw new Damage('a record of no known kind')
  }
  for (const [key, text] of records) {
    try {
      read(key, text)
    } catch (error) {
      if (!(error instanceof Damage || error instanceof SyntaxError)) throw error
      unreadable++
    }
  }
  const entries = [...newest.values()].flatMap(({ entry }) => entry ?? [])
  for (const { lease } of entries) {
    if (lease !== undefined && !leases.has(lease)) {
      leases.set(lease, { id: lease, ttlMs: lostLeaseTtlMs })
    }
  }
  return {
    storeId: meta?.storeId,
    entries,
    leases: [...leases.values()],
    newestRevision: Math.max(newestRevision, meta?.revision ?? 0),
    unreadable,
    expectedEntries: meta?.entries,
  }
}
