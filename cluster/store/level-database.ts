import { dirname } from 'node:path'
import { Level } from 'level'
import { failure, MacfleetError } from '../../base/errors.ts'
import { messageOf } from '../../base/log.ts'
import { Damage, type Meta, recordKey, toMeta, unseal } from './level-format.ts'
import { storeUnavailable } from './store-core.ts'

/** A LevelDB of text to text. */
export type Database = Level<string, string>

/** Small caches: the state is in memory anyway, LevelDB reads only at start and for old watches. */
const settings = {
  keyEncoding: 'utf8',
  valueEncoding: 'utf8',
  cacheSize: 1024 * 1024,
  writeBufferSize: 1024 * 1024,
  maxOpenFiles: 100,
} as const

/** What the system says when the fault is not in the data. */
const systemFault =
  /ENOSPC|EDQUOT|EACCES|EPERM|EROFS|EMFILE|ENFILE|EIO|ENOMEM|No space left|quota exceeded|Permission denied|Read-only|Too many open files|Input\/output error|Cannot allocate/i

/** A read met a database that was just closed, because a write failed. */
const closedCodes = new Set<unknown>(['LEVEL_DATABASE_NOT_OPEN', 'LEVEL_ITERATOR_NOT_OPEN'])

/**
 * Opens a LevelDB; only one process, and one time in it, can have it open.
 * @throws storeLocked, unavailable, or Damage
 */
export async function openDatabase(path: string, createIfMissing: boolean): Promise<Database> {
  const database = new Level(path, { ...settings, createIfMissing })
  try {
    await database.open()
    return database
  } catch (error) {
    throw isLocked(error) ? locked(path, error) : explain(error)
  }
}

/**
 * Finds out whether somebody has the LevelDB open, without changing it: LevelDB takes its lock
 * before it sees that a database must not exist, and then refuses.
 * @throws storeLocked
 */
export async function assertUnlocked(path: string): Promise<void> {
  const probe = new Level(path, { createIfMissing: false, errorIfExists: true })
  try {
    await probe.open()
    await probe.close()
  } catch (error) {
    if (isLocked(error)) throw locked(path, error)
  }
}

/**
 * Turns an error met while reading, of LevelDB or the file system, into `unavailable` or Damage.
 */
export function explain(error: unknown): Error {
  if (error instanceof Damage || error instanceof MacfleetError) return error
  const inner = innerError(error)
  if (closedCodes.has(codeOf(inner)) || systemFault.test(messageOf(inner))) return fault(inner)
  return new Damage(messageOf(inner), { cause: error })
}

/**
 * The same for a write, which fails for want of room or by a fault of the disk, seldom by damage.
 */
export function explainWrite(error: unknown): Error {
  const inner = innerError(error)
  return codeOf(inner) === 'LEVEL_CORRUPTION' ? explain(error) : fault(inner)
}

function fault(inner: unknown): Error {
  return storeUnavailable(messageOf(inner), 'See whether its disk is full or faulty', inner)
}

/**
 * Mends what can be mended of a LevelDB that does not open. What it can't read goes into `lost/`.
 */
export async function repairDatabase(path: string): Promise<void> {
  // The types of `level` leave out this function, because browsers have none.
  const repair: unknown = Reflect.get(Level, 'repair')
  if (typeof repair !== 'function') throw new Error('this LevelDB has no repair')
  await Reflect.apply(repair, Level, [path])
}

/** Reads the meta record; undefined in a new database. */
export async function readMeta(database: Database): Promise<Meta | undefined> {
  const text: string | undefined = await database.get(recordKey.meta)
  return text === undefined ? undefined : toMeta(unseal(recordKey.meta, text))
}

/** LevelDB's wrapper says little; what it wraps says what happened. */
function innerError(error: unknown): unknown {
  return error instanceof Error && error.cause !== undefined ? error.cause : error
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined
}

function isLocked(error: unknown): boolean {
  return codeOf(innerError(error)) === 'LEVEL_LOCKED'
}

function locked(path: string, cause: unknown): Error {
  return failure('storeLocked', { folder: dirname(path) }, { cause })
}
