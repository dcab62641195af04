import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { failure } from '../base/errors.ts'

/**
 * Opens a regular file in a folder that a guest's user can write. A guest that has taken over its
 * QEMU may have put anything there: a symbolic link to a secret of the host or a pipe that never
 * answers is refused.
 * @param flags of open(2); reading by default
 * @throws guestFileRefused
 */
export async function openGuestFile(
  path: string,
  flags: number = constants.O_RDONLY,
): Promise<FileHandle> {
  const handle = await open(path, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(
    error => {
      if (error.code !== 'ELOOP' && error.code !== 'ENXIO') throw error
      throw failure('guestFileRefused', { path }, { cause: error })
    },
  )
  if ((await handle.stat()).isFile()) return handle
  await handle.close()
  throw failure('guestFileRefused', { path })
}
