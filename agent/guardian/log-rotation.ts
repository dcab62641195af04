import { constants, fstatSync, ftruncateSync, readSync, writeSync } from 'node:fs'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { isFailure, messageOf } from '../../base/errors.ts'
import { isErrno } from '../../base/files.ts'
import type { Log } from '../../base/log.ts'
import { openGuestFile } from '../../kvm/guest-file.ts'
import type { GuardedLog } from './protocol.ts'

const blockBytes = 256 * 1024
/** How many blocks more are copied for a writer that goes on while we finish. */
const finishRounds = 16
/** A writer may run past the limit before we look; `.1` keeps at most so many times the limit. */
const keptLimits = 4

/**
 * Moves the content of a log that has grown beyond its limit to `PATH.1` (the last 4 x
 * `limitBytes` of it) and empties it. The writer keeps its descriptor and must have opened the log
 * with O_APPEND.
 *
 * The copy window: what is written between the last look at the size and the truncation, two
 * system calls one after the other, is lost. Nothing else is, unless the copy fails: then the log
 * is emptied all the same, because a bounded disk matters more than an old console.
 *
 * The folder may belong to a guest's user, so nothing in it is trusted: only a regular file that
 * lies there itself is touched, and the copy is made under a new name and renamed.
 * @returns whether it rotated
 */
export async function rotateLog(guarded: GuardedLog, log: Log): Promise<boolean> {
  const file = await openLog(guarded.path)
  if (file === undefined) return false
  let older: OlderLog | undefined
  try {
    const { size } = await file.stat()
    if (size <= guarded.limitBytes) return false
    older = await copyToOlder(file, guarded).catch(error => {
      log.warn({ path: guarded.path, error: messageOf(error) }, 'a log could not be kept')
      return undefined
    })
    finish(file, older)
    return true
  } finally {
    await older?.copy.close()
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

/** The copy, in its place, and how far it reaches. */
interface OlderLog {
  copy: FileHandle
  copiedBytes: number
}

async function copyToOlder(file: FileHandle, guarded: GuardedLog): Promise<OlderLog> {
  const { uid, gid, size } = await file.stat()
  const temporary = `${guarded.path}.1.tmp`
  await rm(temporary, { force: true })
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants
  const copy = await open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
  try {
    // Its owner goes on owning all of the folder, so that its quota counts and it can be moved.
    if (process.getuid?.() === 0) await copy.chown(uid, gid)
    const block = Buffer.allocUnsafe(blockBytes)
    let at = Math.max(0, size - keptLimits * guarded.limitBytes)
    while (at < size) {
      const { bytesRead } = await file.read(block, 0, Math.min(blockBytes, size - at), at)
      if (bytesRead === 0) break
      await copy.write(block, 0, bytesRead)
      at += bytesRead
    }
    await rename(temporary, `${guarded.path}.1`)
    return { copy, copiedBytes: at }
  } catch (error) {
    await copy.close()
    await rm(temporary, { force: true })
    throw error
  }
}

/** Copies what was written meanwhile, and empties the log in the same breath. */
function finish(file: FileHandle, older: OlderLog | undefined): void {
  try {
    if (older !== undefined) copyRest(file.fd, older)
  } finally {
    ftruncateSync(file.fd, 0)
  }
}

function copyRest(file: number, { copy, copiedBytes }: OlderLog): void {
  const block = Buffer.allocUnsafe(blockBytes)
  let at = copiedBytes
  for (let round = 0; round < finishRounds && at < fstatSync(file).size; round++) {
    const bytesRead = readSync(file, block, 0, blockBytes, at)
    writeSync(copy.fd, block, 0, bytesRead)
    at += bytesRead
  }
}
