import { createReadStream } from 'node:fs'
import { open as openFile, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip, createGzip } from 'node:zlib'
import { type Clock, preciseTimestamp } from '../../base/clock.ts'
import { failure, messageOf } from '../../base/errors.ts'
import { syncFolder } from '../../base/files.ts'
import type { JsonValue } from '../../base/json.ts'
import type { Limits } from '../../base/limits.ts'
import type { Random } from '../../base/random.ts'
import { fleetKey } from '../fleet/keys.ts'
import type { FleetRecord } from '../fleet/member.ts'
import type { Store } from '../store/store.ts'
import { createTally, lastingPairs, type Pair, type Tally } from './copy.ts'
import { linesOf } from './lines.ts'
import { open, SealError, type SealRefusal, seal } from './seal.ts'

/** What the first line of a backup says. */
export interface BackupHeader {
  format: 1
  /** RFC 3339. */
  createdAt: string
  /** The version of macfleet that made it. */
  version: string
  fleet: FleetRecord
  /** The store's revision at which it was read. */
  revision: number
  keys: number
  /** What is not in the store and must not be lost: the keys of the authorities, by name. */
  secrets: { readonly [name: string]: string }
}

/** What is backed up. */
export interface BackupInit {
  version: string
  secrets: { readonly [name: string]: string }
  passphrase: string
  /** See seal.ts. */
  scryptCost: number
}

/** What making a backup needs. */
export interface BackupComponents {
  store: Store
  clock: Clock
  random: Random
}

/**
 * All lasting keys at one revision, compressed and sealed, as the bytes of a file. Inside: one JSON
 * value a line: the header, the pairs in the order of their keys, and a tally of them.
 * @throws unavailable when the store does not answer, or is not that of a fleet
 */
export async function* makeBackup(
  init: BackupInit,
  components: BackupComponents,
): AsyncGenerator<Buffer> {
  const { store, clock, random } = components
  const { entries, revision } = await store.list('')
  const fleet = entries.find(({ key }) => key === fleetKey)?.value as FleetRecord | undefined
  if (fleet === undefined) {
    const detail = 'this host is in no fleet'
    const advice = 'Make it one: `macfleet cluster init`'
    throw failure('unavailable', { what: 'a backup', detail, advice })
  }
  const pairs = lastingPairs(entries)
  const header: BackupHeader = {
    format: 1,
    createdAt: preciseTimestamp(clock),
    version: init.version,
    fleet,
    revision,
    keys: pairs.length,
    secrets: init.secrets,
  }
  const compressed = createGzip()
  const written = pipeline(Readable.from(linesOfBackup(header, pairs)), compressed)
  // Its failure is that of the stream, which whoever reads that sees.
  written.catch(() => {})
  yield* seal(compressed, init.passphrase, { random, cost: init.scryptCost })
  await written
}

function* linesOfBackup(header: BackupHeader, pairs: readonly Pair[]): Generator<Buffer> {
  const counted = createTally()
  const line = (value: object) => Buffer.from(`${JSON.stringify(value)}\n`)
  yield line(header)
  for (const pair of pairs) {
    counted.add(pair)
    yield line(pair)
  }
  yield line(counted.tally())
}

/** Writes a backup to a file (0600), which is there whole or not at all. */
export async function writeBackup(path: string, bytes: AsyncIterable<Buffer>): Promise<void> {
  const temporary = `${path}.tmp`
  await rm(temporary, { force: true })
  try {
    const file = await openFile(temporary, 'wx', 0o600)
    try {
      for await (const part of bytes) await file.write(part)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
    await syncFolder(dirname(path))
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
}

/** A backup that was read to its end and found whole. */
export interface Backup {
  header: BackupHeader
  /** Reads the file once more. In the order of the keys. @throws backupRefused */
  pairs(): AsyncIterable<Pair>
}

/**
 * Reads and checks a backup.
 * @throws backupRefused: another passphrase, cut off, changed, or no backup at all; fileUnreadable
 */
export async function readBackup(
  path: string,
  passphrase: string,
  limits: Limits,
): Promise<Backup> {
  let header: BackupHeader | undefined
  const counted = createTally()
  let tally: Tally | undefined
  await explained(path, async () => {
    for await (const line of readLines(path, passphrase, limits)) {
      if (header === undefined) header = asHeader(line)
      else if (tally !== undefined) throw new SealError('altered')
      else if ('digest' in line && 'keys' in line) tally = line as unknown as Tally
      else counted.add(asPair(line))
    }
  })
  const found = counted.tally()
  const isWhole = tally?.digest === found.digest && tally.keys === found.keys
  if (header === undefined || !isWhole || header.keys !== found.keys) throw refused(path, 'altered')
  const whole = header
  return { header: whole, pairs: () => pairsOf(path, passphrase, limits) }
}

async function* pairsOf(path: string, passphrase: string, limits: Limits): AsyncGenerator<Pair> {
  let isFirst = true
  try {
    for await (const line of readLines(path, passphrase, limits)) {
      if (!isFirst && !('digest' in line)) yield asPair(line)
      isFirst = false
    }
  } catch (error) {
    throw explain(path, error)
  }
}

type Fields = { readonly [name: string]: JsonValue | undefined }

async function* readLines(
  path: string,
  passphrase: string,
  limits: Limits,
): AsyncGenerator<Fields> {
  const plain = createGunzip()
  const sealed = createReadStream(path)
  const fed = pipeline(Readable.from(open(sealed, passphrase)), plain)
  // Its failure is that of the stream, which is read here.
  fed.catch(() => {})
  try {
    for await (const line of linesOf(plain, limits)) {
      const value: JsonValue = JSON.parse(line)
      if (typeof value !== 'object' || value === null || Array.isArray(value)) {
        throw new SealError('altered')
      }
      yield value as Fields
    }
    // Only now is it known that nothing was cut off.
    await fed
  } finally {
    plain.destroy()
    sealed.destroy()
  }
}

function asHeader(line: Fields): BackupHeader {
  const { format, fleet, revision } = line
  if (format !== 1) throw new SealError('unknownVersion')
  if (typeof fleet !== 'object' || typeof revision !== 'number') throw new SealError('altered')
  return line as unknown as BackupHeader
}

function asPair({ key, value }: Fields): Pair {
  if (typeof key !== 'string' || value === undefined) throw new SealError('altered')
  return { key, value }
}

async function explained(path: string, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    throw explain(path, error)
  }
}

function explain(path: string, error: unknown): unknown {
  if (error instanceof SealError) return refused(path, error.refusal)
  if (!(error instanceof Error) || !('code' in error)) return refused(path, 'altered')
  const { code } = error
  if (typeof code === 'string' && /^(Z_|ERR_)/.test(code)) return refused(path, 'altered')
  return failure('fileUnreadable', { path, detail: messageOf(error) })
}

const refusals: Record<SealRefusal, { detail: string; advice: string }> = {
  notSealed: { detail: 'it is no backup of macfleet', advice: 'Look for another file' },
  unknownVersion: {
    detail: 'it has a format that this version of macfleet does not know',
    advice: 'Use the version that made it, or a newer one',
  },
  wrongPassphrase: {
    detail: 'the passphrase is another one, or the beginning of the file was changed',
    advice: 'Try again with the passphrase that was given to `macfleet cluster backup`',
  },
  altered: {
    detail: 'it was cut off or changed since it was made',
    advice: 'Nothing of it was used. Take another copy of it, or an older backup',
  },
}

function refused(path: string, refusal: SealRefusal): Error {
  return failure('backupRefused', { path, ...refusals[refusal] })
}
