import { type Database, explain } from './level-database.ts'
import {
  addDigest,
  Damage,
  entryDigest,
  type Meta,
  recordKey,
  toBatch,
  toEntry,
  toLease,
  toMeta,
  unseal,
} from './level-format.ts'
import { firstRevision, type Lease } from './state.ts'
import type { Entry } from './store.ts'

/** Everything a database holds, but for the history. */
export interface Content {
  meta: Meta
  entries: Entry[]
  leases: Lease[]
}

/** The meta record of a new store. */
export function initialMeta(storeId: string): Meta {
  return {
    format: 1,
    storeId,
    sequence: 0,
    revision: firstRevision,
    compactedRevision: firstRevision,
    entries: 0,
    digest: 0,
  }
}

/**
 * Reads and checks every record: each by its checksum, all of them by what the meta record says, so
 * that a record which is missing or out of date is found too.
 * @returns undefined when there is no record at all
 * @throws Damage, unavailable
 */
export async function readContent(database: Database): Promise<Content | undefined> {
  let meta: Meta | undefined
  const entries: Entry[] = []
  const leases: Lease[] = []
  const revisions: number[] = []
  try {
    for await (const [key, text] of database.iterator()) {
      const value = unseal(key, text)
      if (key === recordKey.meta) meta = toMeta(value)
      else if (key.startsWith('e!')) entries.push(toEntry(value))
      else if (key.startsWith('l!')) leases.push(toLease(value))
      else if (key.startsWith('h!')) revisions.push(toBatch(value).revision)
      else throw new Damage(`it has a record ${JSON.stringify(key.slice(0, 100))} of no known kind`)
    }
  } catch (error) {
    throw explain(error)
  }
  if (meta === undefined) {
    if (entries.length + leases.length + revisions.length === 0) return undefined
    throw new Damage('its meta record is missing')
  }
  checkSums(meta, entries, leases)
  checkHistory(meta, revisions)
  return { meta, entries, leases }
}

function checkSums(meta: Meta, entries: readonly Entry[], leases: readonly Lease[]): void {
  if (entries.length !== meta.entries) {
    throw new Damage(`${entries.length} of ${meta.entries} entries are there`)
  }
  const digest = entries.reduce((sum, entry) => addDigest(sum, entryDigest(entry)), 0)
  if (digest !== meta.digest) throw new Damage('some of its entries are out of date')
  const known = new Set(leases.map(({ id }) => id))
  for (const { key, lease } of entries) {
    if (lease !== undefined && !known.has(lease)) throw new Damage(`the lease of ${key} is missing`)
  }
}

function checkHistory(meta: Meta, revisions: readonly number[]): void {
  const expected = meta.revision - meta.compactedRevision
  const whole = revisions.every(
    (revision, index) => revision === meta.compactedRevision + 1 + index,
  )
  if (revisions.length !== expected || !whole) {
    throw new Damage(`${revisions.length} of ${expected} revisions of its history are there`)
  }
}
