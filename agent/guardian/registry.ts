import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isErrno } from '../../base/files.ts'
import type { ProcessIdentity } from '../../base/process-identity.ts'
import { type ExitRecord, isFields, isProcessName } from './protocol.ts'

/** What the disk knows of one process. */
export interface RegistryEntry {
  name: string
  /** The kernel's boot id: after a reboot a pid and a start time mean nothing. */
  bootId: string
  startedAt: string
  stderrPath: string
  exitPath: string
  /** Absent while the process is being started. */
  identity?: ProcessIdentity
  /** Absent until it has ended. */
  ended?: ExitRecord
}

/**
 * One small file per process, so that a guardian that comes after one that was killed knows what
 * ran. Written without fsync: it has to survive the guardian, not the machine (no process survives
 * that).
 */
export interface Registry {
  write(entry: RegistryEntry): void
  remove(name: string): void
  /** All entries. One that can't be read keeps its name, and counts as of another boot. */
  readAll(): RegistryEntry[]
}

const suffix = '.json'

/** Opens the registry in a folder, which is made when it is not there. */
export function openRegistry(folder: string): Registry {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const pathOf = (name: string) => join(folder, `${name}${suffix}`)
  return {
    write(entry) {
      const path = pathOf(entry.name)
      writeFileSync(`${path}.tmp`, JSON.stringify(entry), { mode: 0o600 })
      renameSync(`${path}.tmp`, path)
    },
    remove: name => rmSync(pathOf(name), { force: true }),
    readAll: () =>
      readdirSync(folder)
        .filter(file => file.endsWith(suffix))
        .map(file => file.slice(0, -suffix.length))
        .filter(isProcessName)
        .map(name => readEntry(pathOf(name), name)),
  }
}

function readEntry(path: string, name: string): RegistryEntry {
  const unknown = { name, bootId: '', startedAt: '', stderrPath: '', exitPath: '' }
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'))
    return isEntry(value) && value.name === name ? value : unknown
  } catch (error) {
    // A power cut may leave an empty file: its process is gone all the same, and is reported.
    if (error instanceof SyntaxError || isErrno(error, 'ENOENT')) return unknown
    throw error
  }
}

function isEntry(value: unknown): value is RegistryEntry {
  if (!isFields(value)) return false
  const texts = ['name', 'bootId', 'startedAt', 'stderrPath', 'exitPath']
  const { identity, ended } = value
  return (
    texts.every(field => typeof value[field] === 'string') &&
    (identity === undefined || isIdentity(identity)) &&
    (ended === undefined || isFields(ended))
  )
}

function isIdentity(value: unknown): value is ProcessIdentity {
  return isFields(value) && Number.isInteger(value['pid']) && Number.isInteger(value['startTicks'])
}

/** Names the boot of the machine that we run in (random(4)). */
export function readBootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
}
