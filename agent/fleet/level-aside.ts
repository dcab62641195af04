import { rename, rm } from 'node:fs/promises'
import { isErrno, syncFolder } from '../../base/files.ts'
import { levelFolder } from './beginning.ts'

/** Sets the store aside that this host had before it was in a fleet; one such is kept. */
export async function setLevelAside(dataDir: string): Promise<void> {
  const folder = levelFolder(dataDir)
  const aside = `${folder}-before-fleet`
  await rm(aside, { recursive: true, force: true })
  try {
    await rename(folder, aside)
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error
  }
  await syncFolder(dataDir)
}
