import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { syncFolder, writeFileAtomic } from '../../base/files.ts'
import type { Log } from '../../base/log.ts'
import { readSuccessor } from '../../cluster/store/level-identity.ts'
import { discardFleetFolder } from '../membership/folder-files.ts'

/** Where the store of a single host lies. */
export const levelFolder = (dataDir: string): string => join(dataDir, 'store')

/**
 * While this file is there, a fleet is being made of this host, and whether it is one is decided by
 * what the level store says of its successor.
 */
const markOf = (dataDir: string): string => join(dataDir, 'fleet-beginning')

/** Says that the fleet folder which comes to be may have to be discarded. */
export async function markBeginning(dataDir: string): Promise<void> {
  await writeFileAtomic(markOf(dataDir), 'A fleet is being made of this host.\n')
}

/**
 * Takes back what a beginning left that was interrupted, or confirms it. Called before anything of
 * the fleet is opened; a crash in here only means that it is called again.
 */
export async function finishBeginning(dataDir: string, log: Log): Promise<void> {
  const mark = markOf(dataDir)
  if (!existsSync(mark)) return
  const successor = await readSuccessor(levelFolder(dataDir))
  if (successor === undefined) {
    log.warn({}, 'the making of a fleet was interrupted: this is a single host still')
    await discardFleetFolder(dataDir)
  }
  await confirmBeginning(dataDir)
}

/** Says that the fleet folder holds, whatever the level store says. */
export async function confirmBeginning(dataDir: string): Promise<void> {
  await rm(markOf(dataDir), { force: true })
  await syncFolder(dataDir)
}
