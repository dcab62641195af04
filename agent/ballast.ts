import { rm, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import type { CommandRunner } from '../base/command.ts'
import { messageOf } from '../base/errors.ts'
import { isErrno, makeFolder } from '../base/files.ts'
import type { Limits } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Monitor } from './monitor.ts'

/** Where ballast lies, and how much room there has to be before it is taken on again. */
export interface BallastInit {
  /** A folder of its own, on the disk that the store is on. */
  folder: string
  /** Free bytes, beside the ballast, from which on it is taken on. */
  reserveBytes: number
}

/** What ballast needs. */
export interface BallastComponents {
  monitor: Monitor
  limits: Limits
  run: CommandRunner
  log: Log
}

/** Room that is kept for the store alone. */
export interface Ballast {
  /** Resolves when what is under way is done; what was kept stays. */
  stop(): Promise<void>
}

const fallocateMs = 10_000

/** The files in a ballast folder. */
function ballastPaths(folder: string, { ballastFiles }: Limits): string[] {
  return Array.from({ length: ballastFiles }, (_, index) => join(folder, `ballast-${index}`))
}

/**
 * Gives up all ballast when the disk is full, before the store is opened: guests may have filled it
 * while no daemon ran, and the store is checked in a copy.
 */
export async function makeWay(
  folder: string,
  { limits, log }: Pick<BallastComponents, 'limits' | 'log'>,
): Promise<void> {
  makeFolder(folder)
  const { bavail, bsize } = await statfs(folder)
  if (bavail * bsize >= limits.ballastFiles * limits.ballastFileBytes) return
  log.warn({ folder }, 'the disk is almost full: gave up all ballast')
  for (const path of ballastPaths(folder, limits)) await rm(path, { force: true })
}

/**
 * Keeps files that hold nothing, and throws one overboard whenever the disk is full. Guests take
 * what is free to the last byte, and pause; the daemon has to write down that they did, and what an
 * operator does about it: to remove an image is a write, too. A guest that still runs may take what
 * one file gave, and pauses then: hence several files, one at a time, and none while somebody is
 * about to take the rest, who would not be paused and take all of them.
 *
 * fallocate(1) reserves room without writing; on a file system that can't there is no ballast.
 */
export function startBallast(init: BallastInit, components: BallastComponents): Ballast {
  const { monitor, limits, run, log } = components
  const { ballastFileBytes, ballastReleaseBytes, ballastQuietBytes } = limits
  const paths = ballastPaths(init.folder, limits)
  makeFolder(init.folder)
  let working: Promise<void> | undefined
  let stopped = false

  const release = async (): Promise<void> => {
    for (const path of paths) {
      if (!(await isThere(path))) continue
      await rm(path)
      log.warn({ path, bytes: ballastFileBytes }, 'the disk is full: gave up ballast')
      return
    }
  }
  const takeOn = async (freeBytes: number): Promise<void> => {
    let leftBytes = freeBytes - init.reserveBytes
    for (const path of paths) {
      if (stopped || leftBytes < ballastFileBytes) return
      if (await isThere(path)) continue
      await run('fallocate', ['-l', String(ballastFileBytes), path], { timeoutMs: fallocateMs })
      leftBytes -= ballastFileBytes
    }
  }
  let lastFreeBytes = Number.POSITIVE_INFINITY
  const look = async (): Promise<void> => {
    const { diskFreeBytes } = monitor.current()
    const takenBytes = lastFreeBytes - diskFreeBytes
    lastFreeBytes = diskFreeBytes
    if (diskFreeBytes > init.reserveBytes) await takeOn(diskFreeBytes)
    else if (diskFreeBytes < ballastReleaseBytes && takenBytes < ballastQuietBytes) await release()
  }
  let said = ''
  const lookAlone = (): void => {
    if (stopped || working !== undefined) return
    working = look()
      .catch(error => {
        const text = messageOf(error)
        if (text !== said) log.warn({ error: text }, 'no ballast is kept for a full disk')
        said = text
      })
      .finally(() => {
        working = undefined
      })
  }
  monitor.onSample(lookAlone)
  lookAlone()
  return {
    async stop() {
      stopped = true
      await working
    },
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false
    throw error
  }
}
