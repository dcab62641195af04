import { existsSync } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import { failure } from '../../base/errors.ts'
import { syncFolder } from '../../base/files.ts'
import { type Random, randomUuid } from '../../base/random.ts'
import { initialMeta, readContent } from './level-content.ts'
import { assertUnlocked, type Database, openDatabase, repairDatabase } from './level-database.ts'
import { addDigest, Damage, entryDigest, type Meta, recordKey, seal } from './level-format.ts'
import { createMark, readIdentity, readMark, storeFiles, writeIdentity } from './level-identity.ts'
import { claimFolder } from './level-lock.ts'
import { copyDatabase } from './level-open.ts'
import { type Salvage, salvage } from './level-salvage.ts'

/** What a repair did. */
export interface RepairReport {
  /** The folder as it was found. */
  backupFolder: string
  /** Entries that were read, and are there now. */
  entries: number
  /** How many there should be, where that could be read. */
  expectedEntries: number | undefined
  /** Records that are lost because they could not be read. */
  unreadable: number
  /** The store's revision now: higher than any before, so that every watcher lists anew. */
  revision: number
}

/** At most so many copies of damaged folders are made beside each other. */
const mostBackups = 100

/**
 * Repairs a damaged store: copies its folder aside, lets LevelDB collect what it can, checks every
 * record and builds a new database of the newest state that they tell. The history starts anew.
 * Killed at any point it can be run again.
 * @throws storeLocked; storeCorrupt when nothing at all could be read (the folder then has what
 * LevelDB
 *   made of it; the copy is whole)
 */
export async function repairLevelStore(
  folder: string,
  components: { random: Random },
): Promise<RepairReport> {
  if (!existsSync(folder)) throw corrupt(folder, 'there is no such folder', undefined)
  const release = claimFolder(folder)
  try {
    return await repairClaimed(folder, components.random)
  } finally {
    release()
  }
}

async function repairClaimed(folder: string, random: Random): Promise<RepairReport> {
  const path = storeFiles.database(folder)
  const rebuilt = `${path}.new`
  if (!existsSync(path)) {
    // Killed between taking away the old database and putting the new one in its place.
    if (!existsSync(rebuilt)) throw corrupt(folder, 'there is no database to repair', undefined)
    await rename(rebuilt, path)
  }
  await assertUnlocked(path)
  const backupFolder = freeName(`${folder}.before-repair`)
  await copyDatabase(folder, backupFolder)
  try {
    await repairDatabase(path)
    const found = salvage(await readRecords(path))
    if (found.newestRevision === 0) throw new Damage('not one record of it could be read')
    const meta = await metaOf(folder, found, random)
    await rm(rebuilt, { recursive: true, force: true })
    await build(rebuilt, meta, found)
    await rm(path, { recursive: true })
    await rename(rebuilt, path)
    await syncFolder(folder)
    await createMark(folder, meta.revision)
    await writeIdentity(folder, meta.storeId)
    const { entries, expectedEntries, unreadable } = found
    const { revision } = meta
    return { backupFolder, entries: entries.length, expectedEntries, unreadable, revision }
  } catch (error) {
    throw corrupt(folder, `the repair failed; a copy is in ${backupFolder}`, error)
  }
}

function corrupt(folder: string, detail: string, cause: unknown): Error {
  return failure('storeCorrupt', { folder, detail }, { cause })
}

function freeName(stem: string): string {
  for (let number = 1; number <= mostBackups; number++) {
    const name = `${stem}-${number}`
    if (!existsSync(name)) return name
  }
  throw failure('tooMany', { limit: mostBackups, what: `copies of ${stem}` })
}

async function readRecords(path: string): Promise<[string, string][]> {
  const database = await openDatabase(path, false)
  try {
    return await database.iterator().all()
  } finally {
    await database.close()
  }
}

async function metaOf(folder: string, found: Salvage, random: Random): Promise<Meta> {
  const known = await orUndefined(readIdentity(folder))
  const acknowledged = (await orUndefined(readMark(folder))) ?? 0
  const revision = Math.max(found.newestRevision, acknowledged) + 1
  return {
    ...initialMeta(known ?? found.storeId ?? randomUuid(random)),
    sequence: 1,
    revision,
    compactedRevision: revision,
    entries: found.entries.length,
    digest: found.entries.reduce((sum, entry) => addDigest(sum, entryDigest(entry)), 0),
  }
}

async function orUndefined<Value>(reading: Promise<Value>): Promise<Value | undefined> {
  try {
    return await reading
  } catch (error) {
    if (error instanceof Damage) return undefined
    throw error
  }
}

async function build(path: string, meta: Meta, found: Salvage): Promise<void> {
  const database: Database = await openDatabase(path, true)
  try {
    const put = (key: string, value: object) =>
      ({ type: 'put', key, value: seal(key, value) }) as const
    await database.batch(
      [
        ...found.entries.map(entry => put(recordKey.entry(entry.key), entry)),
        ...found.leases.map(lease => put(recordKey.lease(lease.id), lease)),
        put(recordKey.meta, meta),
      ],
      { sync: true },
    )
    await readContent(database)
  } finally {
    await database.close()
  }
}
