import { lstat, readdir } from 'node:fs/promises'
import Type from 'typebox'
import { Check } from 'typebox/value'
import { isErrno, readJsonFile, writeFileAtomic } from '../../base/files.ts'
import { type Log, messageOf } from '../../base/log.ts'
import { type GuestFolder, type GuestRoots, guestFolder } from '../../kvm/guest-folder.ts'
import type { UserIdentity } from '../../kvm/guest-user.ts'
import type { PortForward } from '../../kvm/machine.ts'
import type { Amounts } from '../../resources/host.ts'
import type { ExitReason, VirtualMachineStatus } from '../../resources/virtual-machine.ts'

/** No guest that failed waits longer for its next start. */
export const longestRestartMs = 300_000

/** Why we end a guest's run. `ended`: the guest ended by itself and its QEMU is let go. */
export type Intent = 'stop' | 'restart' | 'delete' | 'drain' | 'ended'

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
  /**
   * The epoch of its placement in which its disk came to be; another one's disk is not this
   * machine's any more. Absent in records from before there were placements.
   */
  diskEpoch?: number
  /** The fleet's era in which it was last started; absent on a host that is alone. */
  era?: number
  /** How often it was started. */
  runs: number
  /** Values of the start and restart annotations that were acted upon. */
  actedStart?: string
  actedRestart?: string
  /**
   * The last start was begun and its run was not seen to end. While no process is there either, the
   * start did not take place and is owed still.
   */
  startBegun?: true
  /**
   * The run's QEMU was started over an export of its image, which was not here whole, and was not
   * given the file since. By which name, to ask others for it.
   */
  lazyImage?: { name: string }
  /** What the run was promised of its host; the machine's spec may say something else by now. */
  request?: Amounts
  /** What the run was made from, a digest per field of the spec: tells what changed since. */
  madeFrom?: Record<string, string>
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

/** What has to be right in a guest.json, so that nobody is given what this guest has. */
const recordSchema = Type.Object({
  version: Type.Literal(1),
  uid: Type.String(),
  namespace: Type.String(),
  name: Type.String(),
  user: Type.Optional(
    Type.Object({ userId: Type.Integer({ minimum: 1 }), groupId: Type.Integer({ minimum: 1 }) }),
  ),
  imageDigest: Type.Optional(Type.String()),
  lazyImage: Type.Optional(Type.Object({ name: Type.String() })),
  forwards: Type.Array(
    Type.Object({
      protocol: Type.Enum(['TCP', 'UDP']),
      guestPort: Type.Integer(),
      hostPort: Type.Integer(),
      hostAddress: Type.String(),
    }),
  ),
  runs: Type.Integer({ minimum: 0 }),
  failures: Type.Integer({ minimum: 0 }),
})

/** Whether a parsed guest.json is one that this version wrote. */
function isRecord(value: unknown, uid: string): value is GuestRecord {
  return Check(recordSchema, value) && value.uid === uid
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

/** To whom the guests' inner folders belong, those with a damaged record too. */
export async function folderOwners(roots: GuestRoots): Promise<number[]> {
  const owners: number[] = []
  for (const uid of await listFolders(roots.dataRoot)) {
    try {
      owners.push((await lstat(guestFolder(roots, uid).guest)).uid)
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error
    }
  }
  return owners
}

const uidPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

async function listFolders(root: string): Promise<string[]> {
  try {
    const entries = await readdir(root, { withFileTypes: true })
    return entries
      .filter(entry => entry.isDirectory() && uidPattern.test(entry.name))
      .map(entry => entry.name)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return []
    throw error
  }
}
