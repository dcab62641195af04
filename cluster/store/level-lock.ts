import { realpathSync } from 'node:fs'
import { failure } from '../../base/errors.ts'

/**
 * The folders that this process has open. LevelDB's own lock (fcntl) keeps other processes out, but
 * it is lost as soon as this process closes any other descriptor of the lock file, and that is what
 * LevelDB does when it is asked to open a database twice: so it must not even be asked. The
 * kernel's lock belongs to the process as a whole, therefore this list does too.
 */
const held = new Set<string>()

/**
 * Claims a folder that exists for one user in this process.
 * @returns gives the claim up; may be called again
 * @throws storeLocked
 */
export function claimFolder(folder: string): () => void {
  const path = realpathSync(folder)
  if (held.has(path)) throw failure('storeLocked', { folder })
  held.add(path)
  let released = false
  return () => {
    if (!released) held.delete(path)
    released = true
  }
}
