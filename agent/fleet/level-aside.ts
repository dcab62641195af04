import { readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { isErrno, syncFolder } from '../../base/files.ts'
import type { Log } from '../../base/log.ts'
import { levelFolder } from './beginning.ts'

/** Sets the store aside that this host had before it was in a fleet; one such is kept. */
export async function setLevelAside(dataDir: string): Promise<void> {
  const folder = levelFolder(dataDir)
  await setAside(folder, `${folder}-before-fleet`)
  await syncFolder(dataDir)
}

/**
 * Sets aside what is here of the machines of a fleet that this host leaves: no store tells of them
 * any more, but their disks may be the last copy of something. One such is kept.
 */
export async function setGuestsAside(dataDir: string, runRoot: string, log: Log): Promise<void> {
  const folder = join(dataDir, 'guests')
  await rm(runRoot, { recursive: true, force: true })
  const names = await readdir(folder).catch(ignoreMissing)
  if (names === undefined || names.length === 0) return
  const aside = join(dataDir, 'guests-of-left-fleet')
  await setAside(folder, aside)
  await syncFolder(dataDir)
  log.warn({ folder: aside, machines: names.length }, 'machines of the fleet were set aside')
}

async function setAside(folder: string, aside: string): Promise<void> {
  await rm(aside, { recursive: true, force: true })
  await rename(folder, aside).catch(ignoreMissing)
}

function ignoreMissing(error: unknown): undefined {
  if (!isErrno(error, 'ENOENT')) throw error
}
