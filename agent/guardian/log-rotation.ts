import { constants } from 'node:fs'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { isFailure, messageOf } from '../../base/errors.ts'
import { isErrno } from '../../base/files.ts'
import type { Log } from '../../base/log.ts'
import { openGuestFile } from '../../kvm/guest-file.ts'
import type { GuardedLog } from './protocol.ts'

const blockBytes = 256 * 1024
/** How often we look again for what was written while we copied. */
const copyRounds = 8
/** A writer may run past the limit before we look; `.1` keeps at most so many times the limit. */
const keptLimits = 4

/**
 * Moves the content of a log that has grown beyond its limit to `PATH.1` (the last 4 x
 * `limitBytes` of it) and empties it. The writer keeps its descriptor and must have opened the log with O_APPEND.
 *
 * The copy window: what is written between the last look at the size and the truncation right after
 * it (microseconds) is lost. Nothing else is, unless the copy fails: then the log is emptied all the
 * same, because a bounded disk matters more than an old console.
 *
 * The folder may belong to a guest's user, so nothing in it is trusted: only a regular file that lies
 * there itself is touched, and the copy is made under a new name and renamed.
 * @returns whether it rotated
 */
export async function rotateLog(guarded: GuardedLog, log: Log): Promise<boolean> {
  const file = await openLog(guarded.path)
  if (file === undefined) return false
  try {
    const { size } = await file.stat()
    if (size <= guarded.limitBytes) return false
    await copyToOlder(file, guarded).catch(error =>
      log.warn({ path: guarded.path, error: messageOf(error) }, 'a log could not be kept'),
    )
    await file.truncate(0)
    return true
  } finally {
    await file.close()
  }
}

/** The log, open; undefined when there is none, or none that we touch. */
async function openLog(path: string): Promise<FileHandle | undefined> {
  try {
    return await openGuestFile(path, constants.O_RDWR)
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isFailure(error, 'guestFileRefused')) return undefined
    throw error
  }
}

async function copyToOlder(file: FileHandle, guarded: GuardedLog): Promise<void> {
  const { uid, gid, size } = await file.stat()
  const temporary = `${guarded.path}.1.tmp`
  await rm(temporary, { force: true })
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants
  const copy = await open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
  try {
    // Its owner goes on owning all of the folder, so that its quota counts and it can be moved.
    if (process.getuid?.() === 0) await copy.chown(uid, gid)
    await copyGrowing(file, copy, Math.max(0, size - keptLimits * guarded.limitBytes))
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  } finally {
    await copy.close()
  }
  await rename(temporary, `${guarded.path}.1`)
}

/** Copies from `from` to the end, then what was written meanwhile, at most `copyRounds` times. */
async function copyGrowing(file: FileHandle, copy: FileHandle, from: number): Promise<void> {
  const block = Buffer.allocUnsafe(blockBytes)
  let at = from
  for (let round = 0; round < copyRounds; round++) {
    const { size } = await file.stat()
    if (at >= size) return
    while (at < size) {
      const { bytesRead } = await file.read(block, 0, Math.min(blockBytes, size - at), at)
      if (bytesRead === 0) return
      await copy.write(block, 0, bytesRead)
      at += bytesRead
    }
  }
}
