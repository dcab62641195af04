import type { Limits } from '../../base/limits.ts'
import { assertKept, type History } from './history.ts'
import { type Database, explain, explainWrite, openDatabase, readMeta } from './level-database.ts'
import {
  addDigest,
  Damage,
  entryDigest,
  type Meta,
  recordKey,
  seal,
  toBatch,
  unseal,
} from './level-format.ts'
import { advanceMark } from './level-identity.ts'
import type { OpenFolder } from './level-open.ts'
import { batchOf, type Change, firstRevision } from './state.ts'
import type { WatchBatch } from './store.ts'

/** History records that are read at once for a watch that begins in the past. */
const historyPage = 32

/** Puts changes on the disk. */
export interface Journal {
  /**
   * Writes changes as one batch, synced. When it throws, nothing more can be written before
   * recover().
   * @throws unavailable or Damage
   */
  write(changes: readonly Change[]): Promise<void>
  /**
   * Opens the database anew after a failed write, and says whether that write is there after all.
   */
  recover(): Promise<boolean>
  readHistory: History['read']
  close(): Promise<void>
}

type Record = { type: 'put'; key: string; value: string } | { type: 'del'; key: string }

/** Writes to an open folder. */
export function createJournal(folder: OpenFolder, limits: Limits): Journal {
  const { mark } = folder
  let database: Database = folder.database
  let meta = folder.content.meta
  /** What the meta record is if the write that is under way, or that failed, took place. */
  let nextMeta = meta

  return {
    async write(changes) {
      const { records, after } = encode(changes, meta, limits.storeHistory)
      nextMeta = after
      try {
        await database.batch(records, { sync: true })
        await advanceMark(mark, after.revision)
      } catch (error) {
        throw explainWrite(error)
      }
      meta = after
    },
    async recover() {
      await database.close()
      database = await openDatabase(database.location, false)
      const found = await readMeta(database)
      if (found?.sequence === meta.sequence) return false
      if (found?.sequence !== nextMeta.sequence) throw new Damage('it was changed by others')
      meta = nextMeta
      return true
    },
    async readHistory(afterRevision, lastRevision) {
      assertKept(afterRevision, meta.compactedRevision)
      const batches = await readPage(database, afterRevision, lastRevision)
      if (batches[0]?.revision === Math.max(afterRevision, firstRevision) + 1) return batches
      // A write that is under way deletes old history before `meta` says so.
      assertKept(afterRevision, nextMeta.compactedRevision)
      throw new Damage(`its history after revision ${afterRevision} is missing`)
    },
    async close() {
      try {
        await database.close()
        await mark.sync()
      } finally {
        await mark.close()
        folder.release()
      }
    },
  }
}

async function readPage(database: Database, after: number, last: number): Promise<WatchBatch[]> {
  const from = Math.max(after, firstRevision)
  const range = { gt: recordKey.history(from), lte: recordKey.history(last), limit: historyPage }
  try {
    const records = await database.iterator(range).all()
    return records.map(([key, text]) => toBatch(unseal(key, text)))
  } catch (error) {
    throw explain(error)
  }
}

function encode(changes: readonly Change[], before: Meta, storeHistory: number) {
  const after: Meta = { ...before, sequence: before.sequence + 1 }
  const records: Record[] = []
  const put = (key: string, value: object) =>
    records.push({ type: 'put', key, value: seal(key, value) })
  for (const change of changes) {
    const { granted, ended } = change
    if (granted !== undefined) put(recordKey.lease(granted.id), granted)
    if (ended !== undefined) records.push({ type: 'del', key: recordKey.lease(ended) })
    if (change.events.length > 0) put(recordKey.history(change.revision), batchOf(change))
    for (const { key, entry, previous } of change.events) {
      if (entry === undefined) records.push({ type: 'del', key: recordKey.entry(key) })
      else put(recordKey.entry(key), entry)
      after.entries += (entry === undefined ? 0 : 1) - (previous === undefined ? 0 : 1)
      if (entry !== undefined) after.digest = addDigest(after.digest, entryDigest(entry))
      if (previous !== undefined) after.digest = addDigest(after.digest, -entryDigest(previous))
    }
    after.revision = change.revision
  }
  after.compactedRevision = Math.max(before.compactedRevision, after.revision - storeHistory)
  for (let old = before.compactedRevision + 1; old <= after.compactedRevision; old++) {
    records.push({ type: 'del', key: recordKey.history(old) })
  }
  put(recordKey.meta, after)
  return { records, after }
}
