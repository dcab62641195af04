import { type FileHandle, open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { failure } from '../../base/errors.ts'
import { isErrno, readJsonFile, writeFileAtomic } from '../../base/files.ts'
import { Damage } from './level-format.ts'

/** The names in a store's folder. */
export const storeFiles = {
  /** The LevelDB. */
  database: (folder: string): string => join(folder, 'level'),
  /** Says that there is a store here, and which: a lost database is not taken for a new one. */
  identity: (folder: string): string => join(folder, 'store.json'),
  /** The revision that was acknowledged last: a database with less has lost something. */
  mark: (folder: string): string => join(folder, 'acknowledged'),
  /** Says that everything was moved to etcd, and what is here is the past. */
  successor: (folder: string): string => join(folder, 'moved.json'),
}

const markDigits = 16

/** Reads the id of the store in a folder; undefined when no store was ever completed there. */
export async function readIdentity(folder: string): Promise<string | undefined> {
  let found: unknown
  try {
    found = await readJsonFile(storeFiles.identity(folder))
  } catch (error) {
    if (error instanceof SyntaxError) throw new Damage('store.json is garbled')
    throw error
  }
  if (found === undefined) return undefined
  if (typeof found !== 'object' || found === null || !('storeId' in found)) {
    throw new Damage('store.json is garbled')
  }
  const { storeId } = found
  if (typeof storeId !== 'string') throw new Damage('store.json is garbled')
  return storeId
}

/** Writes the id; from then on a folder without its database is damaged, not new. */
export async function writeIdentity(folder: string, storeId: string): Promise<void> {
  await writeFileAtomic(storeFiles.identity(folder), `${JSON.stringify({ format: 1, storeId })}\n`)
}

/** Reads the revision that was acknowledged last (after a power cut: one from shortly before). */
export async function readMark(folder: string): Promise<number> {
  let text: string
  try {
    text = await readFile(storeFiles.mark(folder), 'utf8')
  } catch (error) {
    if (isErrno(error, 'ENOENT')) throw new Damage('its file `acknowledged` is missing')
    throw error
  }
  if (!/^\d{16}\n$/.test(text)) throw new Damage('its file `acknowledged` is garbled')
  return Number(text)
}

/** Makes the mark's file. */
export async function createMark(folder: string, revision: number): Promise<void> {
  await writeFileAtomic(storeFiles.mark(folder), markText(revision))
}

/**
 * Writes the mark in place and without sync: after kill -9 it is exact, after a power cut it may be
 * older, which is still true. 17 bytes in one sector are not torn.
 */
export async function advanceMark(mark: FileHandle, revision: number): Promise<void> {
  await mark.write(markText(revision), 0)
}

/** Opens the mark for advanceMark. */
export function openMark(folder: string): Promise<FileHandle> {
  return open(storeFiles.mark(folder), 'r+')
}

function markText(revision: number): string {
  return `${String(revision).padStart(markDigits, '0')}\n`
}

/** Where a store was moved to. */
export interface Successor {
  fleetId: string
  /** etcd's own id of its cluster. */
  clusterId: string
}

/**
 * Records, for good, that etcd has everything: from now on nothing is read or written here, however
 * the host ends and starts. Synced; after a crash it is there or not, and decides who is the truth.
 */
export async function writeSuccessor(folder: string, successor: Successor): Promise<void> {
  const text = `${JSON.stringify({ format: 1, ...successor })}\n`
  await writeFileAtomic(storeFiles.successor(folder), text)
}

/**
 * Reads where a store was moved to; undefined while the store here is the truth.
 * @throws storeCorrupt when that can't be told: then neither store may be taken for the truth
 */
export async function readSuccessor(folder: string): Promise<Successor | undefined> {
  let found: unknown
  try {
    found = await readJsonFile(storeFiles.successor(folder))
  } catch (error) {
    if (error instanceof SyntaxError) throw garbledSuccessor(folder)
    throw error
  }
  if (found === undefined) return undefined
  if (typeof found !== 'object' || found === null) throw garbledSuccessor(folder)
  if (!('fleetId' in found) || !('clusterId' in found)) throw garbledSuccessor(folder)
  const { fleetId, clusterId } = found
  if (typeof fleetId !== 'string' || typeof clusterId !== 'string') throw garbledSuccessor(folder)
  return { fleetId, clusterId }
}

function garbledSuccessor(folder: string): Error {
  return failure('storeCorrupt', { folder, detail: 'its file moved.json is garbled' })
}
