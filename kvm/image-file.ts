import { constants } from 'node:fs'
import { chmod, copyFile, link, rename, rm, stat, symlink, utimes } from 'node:fs/promises'
import { resolve } from 'node:path'
import { failure } from '../base/errors.ts'
import { isErrno } from '../base/files.ts'
import type { UserIdentity } from './guest-user.ts'

/**
 * Puts an image's raw file into a guest's outer folder as a hard link. So the guest's user can read
 * it although the folders of the images may be closed to it; it can't write it, because it owns
 * neither the file nor the folder; and its bytes stay as long as a guest has them. The file must be
 * readable by everybody (0444): nothing of it is changed here. When the images are on another file
 * system, or not the daemon's own (fs.protected_hardlinks, proc(5)), it is a symbolic link, and the
 * folders above the image must let the guest's user pass.
 * @throws imageUnreadable
 */
export async function linkImage(
  source: string,
  target: string,
  owner: UserIdentity | undefined,
): Promise<void> {
  const status = await stat(source)
  if (!status.isFile() || (owner !== undefined && (status.mode & 0o004) === 0)) {
    throw failure('imageUnreadable', { path: source })
  }
  await place(target, async temporary => {
    await link(source, temporary).catch(error => {
      if (!isErrno(error, 'EXDEV') && !isErrno(error, 'EPERM')) throw error
      return symlink(resolve(source), temporary)
    })
  })
}

/**
 * Copies a kernel or initial RAM disk into a guest's outer folder, readable and not writable. One
 * that was copied before and has not changed since (size and time) stays, so that a start does not
 * wait.
 */
export async function copyBootFile(source: string, target: string): Promise<void> {
  const from = await stat(source)
  const present = await stat(target).catch(() => undefined)
  if (present?.size === from.size && present.mtime.getTime() === from.mtime.getTime()) return
  await place(target, async temporary => {
    await copyFile(source, temporary, constants.COPYFILE_FICLONE)
    await chmod(temporary, 0o444)
    await utimes(temporary, from.atime, from.mtime)
  })
}

async function place(target: string, create: (temporary: string) => Promise<void>): Promise<void> {
  const temporary = `${target}.tmp`
  await rm(temporary, { force: true })
  await create(temporary)
  await rename(temporary, target)
  // rename(2) leaves both names when they are links to one file.
  await rm(temporary, { force: true })
}
