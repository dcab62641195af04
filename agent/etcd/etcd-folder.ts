import { mkdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type Clock, preciseTimestamp } from '../../base/clock.ts'
import {
  isErrno,
  makeFolder,
  namesIn,
  readJsonFile,
  syncFolder,
  writeFileAtomic,
} from '../../base/files.ts'

/** Which member of which etcd the data of this host is; both in hexadecimal, as etcd prints them. */
export interface MemberIdentity {
  memberId: string
  clusterId: string
}

/** What etcd leaves on this host: its data with the identity, its log, and what was set aside. */
export interface EtcdFolder {
  /** For --data-dir. */
  data: string
  log: string
  stderr: string
  exit: string
  /** Whether a member was ever started here: then it is started again without asking anybody. */
  hasData(): Promise<boolean>
  /** Undefined as long as it was not written down, though there may be data. */
  identity(): Promise<MemberIdentity | undefined>
  writeIdentity(identity: MemberIdentity): Promise<void>
  /**
   * Sets data and identity aside in one step; at most `retiredMost` of such are kept. Only while
   * etcd does not run.
   */
  retire(): Promise<void>
}

/** One may have been set aside by mistake; more are of no use to anybody. */
const retiredMost = 2
const retiredPrefix = 'retired-'

/**
 * The folder of etcd on one host (0700). Data and identity lie in one folder, so that neither is
 * ever there with the other of an earlier life.
 */
export function openEtcdFolder(folder: string, clock: Clock): EtcdFolder {
  makeFolder(folder)
  const current = join(folder, 'current')
  const data = join(current, 'data')
  const identityPath = join(current, 'member.json')
  return {
    data,
    log: join(folder, 'etcd.log'),
    stderr: join(folder, 'etcd.stderr'),
    exit: join(folder, 'etcd.exit.json'),
    // The log of writes is made whole by one rename; what is there without it was never started.
    hasData: async () => (await namesIn(join(data, 'member', 'wal'))).length > 0,
    async identity() {
      return toIdentity(await readJsonFile(identityPath).catch(ignoreGarbled))
    },
    async writeIdentity(identity) {
      await mkdir(current, { recursive: true, mode: 0o700 })
      await writeFileAtomic(identityPath, `${JSON.stringify(identity)}\n`)
    },
    async retire() {
      const name = `${retiredPrefix}${preciseTimestamp(clock).replaceAll(':', '')}`
      await rename(current, join(folder, name)).catch(ignoreMissing)
      await syncFolder(folder)
      const retired = (await namesIn(folder)).filter(one => one.startsWith(retiredPrefix)).sort()
      for (const old of retired.slice(0, -retiredMost)) {
        await rm(join(folder, old), { recursive: true, force: true })
      }
    },
  }
}

function ignoreMissing(error: unknown): void {
  if (!isErrno(error, 'ENOENT')) throw error
}

/** An identity can be asked for again; etcd's own data has it too. */
function ignoreGarbled(error: unknown): undefined {
  if (error instanceof SyntaxError) return undefined
  throw error
}

function toIdentity(value: unknown): MemberIdentity | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  if (!('memberId' in value) || !('clusterId' in value)) return undefined
  const { memberId, clusterId } = value
  if (typeof memberId !== 'string' || typeof clusterId !== 'string') return undefined
  return { memberId, clusterId }
}
