import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type Clock, preciseTimestamp } from '../../base/clock.ts'
import { isErrno, makeFolder, writeFileAtomic } from '../../base/files.ts'
import type { Log } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import { createWorkQueue } from '../../base/work-queue.ts'
import type { Store } from '../store/store.ts'
import { makeBackup, writeBackup } from './backup.ts'

/** What is kept, and where. */
export interface SnapshotsInit {
  /** Of this host, 0700. */
  folder: string
  version: string
  /** Between two of them; counted over restarts of the daemon, by the files' names. */
  intervalMs: number
  /** So many are kept, the newest. */
  keptMost: number
  /** log2 of scrypt's N; low is enough, as nobody guesses the passphrase. */
  scryptCost: number
  /** Whether this host has a voter: only such hosts hold all of the store on disk anyway. */
  isVoter(): boolean
}

/** What making them needs. */
export interface SnapshotsComponents {
  store: Store
  clock: Clock
  random: Random
  log: Log
}

const prefix = 'snapshot-'
/** How often it is looked whether one is due. */
const lookMs = 60_000

/** The passphrase of a folder's snapshots lies beside them: they are as secret as etcd's data. */
export function snapshotKeyPath(folder: string): string {
  return join(folder, 'passphrase')
}

/**
 * Keeps copies of the store on the voters, for when etcd itself is beyond help: backups like those
 * of `macfleet cluster backup`, but without the keys of the authorities, which a voter has anyway.
 */
export function startSnapshots(
  init: SnapshotsInit,
  components: SnapshotsComponents,
): { stop(): Promise<void> } {
  const queue = createWorkQueue(
    {
      async handle() {
        if (init.isVoter()) await takeIfDue(init, components)
        return { againMs: Math.min(lookMs, init.intervalMs) }
      },
      backoff: { firstMs: 60_000, mostMs: 600_000 },
    },
    components,
  )
  queue.add('snapshot')
  return { stop: () => queue.stop() }
}

async function takeIfDue(init: SnapshotsInit, components: SnapshotsComponents): Promise<void> {
  const { folder, intervalMs, keptMost, version, scryptCost } = init
  const { clock, log } = components
  makeFolder(folder)
  const names = await snapshotsIn(folder)
  const sinceMs = clock.wallMs() - madeAtMs(names.at(-1))
  // A clock that was set back must not end snapshots for as long as it was ahead.
  if (sinceMs >= 0 && sinceMs < intervalMs) return
  const path = join(folder, nameAt(clock))
  const passphrase = await passphraseOf(folder, components.random)
  await writeBackup(path, makeBackup({ version, secrets: {}, passphrase, scryptCost }, components))
  log.info({ path }, 'a snapshot of the store was taken')
  for (const old of names.slice(0, Math.max(0, names.length + 1 - keptMost))) {
    await rm(join(folder, old), { force: true })
  }
}

/** Their names, the oldest first; takes away what a crash left half. */
async function snapshotsIn(folder: string): Promise<string[]> {
  const names = (await readdir(folder)).filter(name => name.startsWith(prefix)).sort()
  const halves = names.filter(name => name.endsWith('.tmp'))
  for (const half of halves) await rm(join(folder, half), { force: true })
  return names.filter(name => !halves.includes(name))
}

/** Without colons, which scp takes for the end of a host's name. */
function nameAt(clock: Clock): string {
  return `${prefix}${preciseTimestamp(clock).replaceAll(':', '')}`
}

/** When a snapshot was made, by its name; long ago without one, or with another name. */
function madeAtMs(name = ''): number {
  const time = name.slice(prefix.length).replace(/T(\d\d)(\d\d)/, 'T$1:$2:')
  return Date.parse(time) || 0
}

async function passphraseOf(folder: string, random: Random): Promise<string> {
  const path = snapshotKeyPath(folder)
  try {
    return (await readFile(path, 'utf8')).trim()
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error
  }
  const passphrase = random.bytes(32).toString('base64url')
  await writeFileAtomic(path, `${passphrase}\n`)
  return passphrase
}
