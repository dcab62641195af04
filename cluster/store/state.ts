import { assert } from '../../base/errors.ts'
import { createEntryTable, entryBytes } from './entry-table.ts'
import type { Entry, Listing, ListOptions, WatchBatch, WatchEvent } from './store.ts'

/** The revision of a store that nothing was ever written to, as in etcd. */
export const firstRevision = 1

/** A lease as it is kept: what remains of its time is no part of the state. */
export interface Lease {
  readonly id: string
  readonly ttlMs: number
}

/** One step from a state to the next. */
export interface Change {
  /** The store's revision after it: one more than before if it has events, else the same. */
  readonly revision: number
  readonly events: readonly WatchEvent[]
  readonly granted?: Lease
  /** The id of a lease that ended. */
  readonly ended?: string
}

/** What watchers see of a change. */
export function batchOf({ events, revision }: Change): WatchBatch {
  return { events, revision }
}

/** What a decision may look at. */
export interface StateReader {
  revision(): number
  bytes(): number
  get(key: string): Entry | undefined
  withPrefix(prefix: string): Entry[]
  hasLease(lease: string): boolean
  leaseCount(): number
  /** The entries that end with this lease, in order of their keys. */
  withLease(lease: string): Entry[]
}

/** Everything a store holds, in memory. */
export interface State extends StateReader {
  list(prefix: string, options: ListOptions): Listing
  leases(): Lease[]
  apply(change: Change): void
}

/** What a state starts from; an empty store without it. */
export interface StateInit {
  revision: number
  entries: readonly Entry[]
  leases: readonly Lease[]
}

/** Makes a state; entries may only name leases that are there. */
export function createState(init?: StateInit): State {
  const table = createEntryTable()
  const leases = new Map<string, { lease: Lease; keys: Set<string> }>()
  let revision = init?.revision ?? firstRevision

  const attach = (entry: Entry): void => {
    if (entry.lease === undefined) return
    const holder = leases.get(entry.lease)
    assert(holder !== undefined, `${entry.key} has a lease that is there`)
    holder.keys.add(entry.key)
  }
  const put = (entry: Entry): void => {
    table.set(entry)
    attach(entry)
  }
  const applyEvent = ({ key, entry, previous }: WatchEvent): void => {
    if (previous?.lease !== undefined) leases.get(previous.lease)?.keys.delete(key)
    if (entry === undefined) table.remove(key)
    else put(entry)
  }
  for (const lease of init?.leases ?? []) leases.set(lease.id, { lease, keys: new Set() })
  for (const entry of init?.entries ?? []) put(entry)

  return {
    revision: () => revision,
    bytes: () => table.bytes(),
    get: key => table.get(key),
    withPrefix: prefix => table.withPrefix(prefix),
    list: (prefix, options) => ({ ...table.page(prefix, options), revision }),
    hasLease: id => leases.has(id),
    leaseCount: () => leases.size,
    leases: () => [...leases.values()].map(({ lease }) => lease),
    withLease: id => [...(leases.get(id)?.keys ?? [])].sort().flatMap(key => table.get(key) ?? []),
    apply(change) {
      const expected = revision + (change.events.length > 0 ? 1 : 0)
      assert(change.revision === expected, `revision ${change.revision} follows ${revision}`)
      if (change.granted !== undefined) {
        leases.set(change.granted.id, { lease: change.granted, keys: new Set() })
      }
      for (const event of change.events) applyEvent(event)
      if (change.ended !== undefined) leases.delete(change.ended)
      revision = change.revision
    },
  }
}

/** A state with changes on top of it that are not durable yet. */
export interface Draft extends StateReader {
  record(change: Change): void
}

/** Lets later decisions of a group see the earlier ones before the state itself shows them. */
export function createDraft(state: StateReader): Draft {
  const changed = new Map<string, Entry | undefined>()
  const leases = new Map<string, boolean>()
  let revision = state.revision()
  let bytes = state.bytes()

  const get = (key: string) => (changed.has(key) ? changed.get(key) : state.get(key))
  /** The entries of `base` as they are now, with those that are new and `match`. */
  const merge = (base: readonly Entry[], match: (entry: Entry) => boolean): Entry[] => {
    if (changed.size === 0) return [...base]
    const merged = base.filter(entry => !changed.has(entry.key))
    for (const entry of changed.values()) {
      if (entry !== undefined && match(entry)) merged.push(entry)
    }
    return merged.sort((a, b) => (a.key < b.key ? -1 : 1))
  }

  return {
    revision: () => revision,
    bytes: () => bytes,
    get,
    withPrefix: prefix => merge(state.withPrefix(prefix), entry => entry.key.startsWith(prefix)),
    hasLease: id => leases.get(id) ?? state.hasLease(id),
    leaseCount: () =>
      [...leases.values()].reduce((sum, held) => sum + (held ? 1 : -1), state.leaseCount()),
    withLease: id => merge(state.withLease(id), entry => entry.lease === id),
    record(change) {
      for (const { key, entry, previous } of change.events) {
        if (previous !== undefined) bytes -= entryBytes(previous)
        if (entry !== undefined) bytes += entryBytes(entry)
        changed.set(key, entry)
      }
      if (change.granted !== undefined) leases.set(change.granted.id, true)
      if (change.ended !== undefined) {
        if (state.hasLease(change.ended)) leases.set(change.ended, false)
        else leases.delete(change.ended)
      }
      revision = change.revision
    },
  }
}
