import { constants } from 'node:fs'
import { copyFile, type FileHandle, mkdir, readdir, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { failure } from '../../base/errors.ts'
import { makeFolder, namesIn } from '../../base/files.ts'
import { type Random, randomUuid } from '../../base/random.ts'
import { type Content, initialMeta, readContent } from './level-content.ts'
import { assertUnlocked, type Database, explain, openDatabase, readMeta } from './level-database.ts'
import { Damage, recordKey, seal } from './level-format.ts'
import {
  createMark,
  openMark,
  readIdentity,
  readMark,
  readSuccessor,
  storeFiles,
  writeIdentity,
} from './level-identity.ts'
import { claimFolder } from './level-lock.ts'

/** An open store folder. */
export interface OpenFolder {
  database: Database
  content: Content
  mark: FileHandle
  /** Lets others in this process open the folder; call it once the database is closed. */
  release(): void
}

/**
 * Opens the store in a folder, or makes one there. Before LevelDB may touch its files (opening
 * deletes logs that it has read, also those that it could not read), a copy of them is opened and
 * checked: what is damaged is refused exactly as it was found.
 * @throws storeLocked, storeMoved, unavailable, or Damage
 */
export async function openFolder(folder: string, random: Random): Promise<OpenFolder> {
  makeFolder(folder)
  const release = claimFolder(folder)
  try {
    return { ...(await openClaimed(folder, random)), release }
  } catch (error) {
    release()
    throw error
  }
}

async function openClaimed(folder: string, random: Random): Promise<Omit<OpenFolder, 'release'>> {
  const successor = await readSuccessor(folder)
  if (successor !== undefined) throw failure('storeMoved', { folder, fleetId: successor.fleetId })
  const path = storeFiles.database(folder)
  const found = await holdsData(path)
  if (found) await assertUnlocked(path)
  let storeId: string | undefined
  let content: Content | undefined
  try {
    storeId = await readIdentity(folder)
    content = found ? await checkCopy(folder, random) : undefined
    await compareWithIdentity(folder, storeId, content)
  } catch (error) {
    // Another process may have opened it meanwhile: then nothing is damaged, it is in use.
    if (found) await assertUnlocked(path)
    throw explain(error)
  }
  const database = await openDatabase(path, storeId === undefined)
  try {
    const complete = await completeContent(database, content, random)
    if (storeId === undefined) {
      await createMark(folder, complete.meta.revision)
      await writeIdentity(folder, complete.meta.storeId)
    }
    await removeCopies(folder)
    return { database, content: complete, mark: await openMark(folder) }
  } catch (error) {
    await database.close()
    throw error
  }
}

/**
 * Whether a folder has LevelDB files that may hold something: not so after kill -9 while it was
 * made.
 */
async function holdsData(path: string): Promise<boolean> {
  for (const name of await namesIn(path)) {
    if (name === 'CURRENT' || /\.(ldb|sst)$/.test(name)) return true
    if (name.endsWith('.log') && (await stat(join(path, name))).size > 0) return true
  }
  return false
}

/**
 * Copies a LevelDB that nobody has open. Its lock file stays out: closing any descriptor of that
 * file would give up the lock that this process may hold on it (fcntl(2), "Advisory record
 * locking").
 */
export async function copyDatabase(path: string, target: string): Promise<void> {
  await mkdir(target, { recursive: true, mode: 0o700 })
  for (const item of await readdir(path, { withFileTypes: true })) {
    if (item.name === 'LOCK') continue
    const [from, to] = [join(path, item.name), join(target, item.name)]
    if (item.isDirectory()) await copyDatabase(from, to)
    else if (item.isFile()) await copyFile(from, to, constants.COPYFILE_FICLONE)
  }
}

const copyPrefix = 'check-'

async function checkCopy(folder: string, random: Random): Promise<Content | undefined> {
  const copy = join(folder, `${copyPrefix}${random.bytes(8).toString('hex')}`)
  try {
    await copyDatabase(storeFiles.database(folder), copy)
    const database = await openDatabase(copy, false)
    try {
      return await readContent(database)
    } finally {
      await database.close()
    }
  } finally {
    await rm(copy, { recursive: true, force: true })
  }
}

/** Takes away what a killed process left of its check. */
async function removeCopies(folder: string): Promise<void> {
  for (const name of await namesIn(folder)) {
    if (name.startsWith(copyPrefix)) await rm(join(folder, name), { recursive: true, force: true })
  }
}

async function compareWithIdentity(
  folder: string,
  storeId: string | undefined,
  content: Content | undefined,
): Promise<void> {
  if (storeId === undefined) {
    // A store that was being made has acknowledged nothing yet; it may be completed.
    if (content === undefined || content.meta.sequence === 0) return
    throw new Damage('its file store.json is missing')
  }
  if (content === undefined) throw new Damage('its database is gone')
  if (content.meta.storeId !== storeId) throw new Damage('its database is that of another store')
  const acknowledged = await readMark(folder)
  if (acknowledged > content.meta.revision) {
    const newest = content.meta.revision
    throw new Damage(`revision ${acknowledged} was acknowledged, but the newest found is ${newest}`)
  }
}

/**
 * Writes the first record of a new store; makes sure that an old one is still as it was checked.
 */
async function completeContent(
  database: Database,
  content: Content | undefined,
  random: Random,
): Promise<Content> {
  const found = await readMeta(database)
  if (content === undefined && found === undefined) {
    const meta = initialMeta(randomUuid(random))
    await database.batch(
      [{ type: 'put', key: recordKey.meta, value: seal(recordKey.meta, meta) }],
      { sync: true },
    )
    return { meta, entries: [], leases: [] }
  }
  if (content === undefined || found?.sequence !== content.meta.sequence) {
    throw failure('storeLocked', { folder: dirname(database.location) })
  }
  return content
}
