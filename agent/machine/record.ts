import { readdir } from 'node:fs/promises'
import { isErrno, readJsonFile, writeFileAtomic } from '../../base/files.ts'
import { type Log, messageOf } from '../../base/log.ts'
import { type GuestFolder, type GuestRoots, guestFolder } from '../../kvm/guest-folder.ts'
import type { UserIdentity } from '../../kvm/guest-user.ts'
import type { PortForward } from '../../kvm/machine.ts'
import type { ExitReason, VirtualMachineStatus } from '../../resources/virtual-machine.ts'

/** Why we end a guest's run. `ended`: the guest ended by itself and its QEMU is let go. */
export type Intent = 'stop' | 'restart' | 'delete' | 'ended'

/** How a run ended. */
export interface RecordedExit {
  reason: ExitReason
  message: string
  /** RFC 3339. */
  time: string
  /** Whether we ended it because we were told to. */
  intended: boolean
}

/**
 * What a host knows of one of its guests and can't find out again: kept in guest.json in the
 * guest's folder. The rest is asked from the guardian, from QMP and from the store.
 */
export interface GuestRecord {
  version: 1
  uid: string
  namespace: string
  name: string
  /** Whom its QEMU runs as; none when the daemon is not root. */
  user?: UserIdentity
  /** The image under its disk; chosen at the first start and kept for good. */
  imageDigest?: string
  /** Where its ports were offered last; kept while they are free. */
  forwards: PortForward[]
  /** How often it was started. */
  runs: number
  /** Values of the start and restart annotations that were acted upon. */
  actedStart?: string
  actedRestart?: string
  /** Set before a run is ended, so that its end is understood whoever sees it. */
  intent?: Intent
  /** What QMP said of the guest's end, before its QEMU was let go. */
  guestEnding?: { reason: ExitReason; message: string }
  lastExit?: RecordedExit
  /** Ends in a row that were failures. */
  failures: number
  /** Wall time in milliseconds before which it is not started again. */
  notBeforeMs?: number
  /** Wall time in milliseconds at which the last start began. */
  startedAtMs?: number
  bootTimings?: VirtualMachineStatus['bootTimings']
}

/** The record of a guest that never ran. */
export function newRecord(uid: string, namespace: string, name: string): GuestRecord {
  return { version: 1, uid, namespace, name, forwards: [], runs: 0, failures: 0 }
}

/** Writes guest.json; after a crash the old or the new one is there. */
export async function writeRecord(folder: GuestFolder, record: GuestRecord): Promise<void> {
  await writeFileAtomic(folder.record, `${JSON.stringify(record, null, 2)}\n`)
}

/** Whether a parsed guest.json is one that this version wrote. */
function isRecord(value: unknown, uid: string): value is GuestRecord {
  if (typeof value !== 'object' || value === null) return false
  const record = value as Partial<GuestRecord>
  return record.version === 1 && record.uid === uid && Array.isArray(record.forwards)
}

/**
 * The records of all guests of this host. A folder whose record can't be read is told and left
 * alone: there may be a disk in it that somebody wants.
 */
export async function readRecords(roots: GuestRoots, log: Log): Promise<GuestRecord[]> {
  const records: GuestRecord[] = []
  for (const uid of await listFolders(roots.dataRoot)) {
    try {
      const record = await readJsonFile(guestFolder(roots, uid).record)
      if (isRecord(record, uid)) records.push(record)
      else if (record !== undefined) log.error({ uid }, 'guest.json is not one of ours')
    } catch (error) {
      log.error({ uid, error: messageOf(error) }, 'guest.json could not be read')
    }
  }
  return records
}

async function listFolders(root: string): Promise<string[]> {
  try {
    const entries = await readdir(root, { withFileTypes: true })
    return entries
      .filter(entry => entry.isDirectory() && /^[0-9a-f-]{36}$/.test(entry.name))
      .map(entry => entry.name)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return []
    throw error
  }
}
