import { lstat, readdir, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { failure } from '../base/errors.ts'
import { isErrno } from '../base/files.ts'

/** Keeps a reserve free on the disk that holds a folder. */
export interface DiskSpace {
  /**
   * Fails unless `neededBytes` more may be written now.
   * @throws diskFull
   */
  demand(neededBytes: number): Promise<void>
}

/** What a disk's room is bounded by. */
export interface DiskSpaceInit {
  folder: string
  /** Kept free on its disk. */
  reserveBytes: number
  /** What the folder may take at most. */
  quotaBytes: number
  /** Removes what can be spared until there is room for so many bytes more, if that goes. */
  makeRoom(neededBytes: number): Promise<unknown>
}

/** Watches over the disk that `folder` lies on. */
export function createDiskSpace(init: DiskSpaceInit): DiskSpace {
  return {
    async demand(neededBytes) {
      if ((await findShortage(init, neededBytes)) === undefined) return
      await init.makeRoom(neededBytes)
      const shortage = await findShortage(init, neededBytes)
      if (shortage === undefined) return
      throw failure('diskFull', { folder: init.folder, detail: shortage.detail })
    },
  }
}

/** How many bytes are short for writing so many more; undefined when there is room. */
export async function findShortage(
  { folder, reserveBytes, quotaBytes }: Omit<DiskSpaceInit, 'makeRoom'>,
  neededBytes: number,
): Promise<{ shortBytes: number; detail: string } | undefined> {
  const { bavail, bsize } = await statfs(folder)
  const freeBytes = bavail * bsize
  const shortBytes = neededBytes + reserveBytes - freeBytes
  if (shortBytes > 0) {
    const kept = `${reserveBytes} are kept back`
    const detail = `${neededBytes} bytes are needed, ${freeBytes} are free, ${kept}`
    return { shortBytes, detail }
  }
  if (quotaBytes === Number.MAX_SAFE_INTEGER) return undefined
  const takenBytes = await usedBytes(folder)
  const overBytes = takenBytes + neededBytes - quotaBytes
  if (overBytes <= 0) return undefined
  const taken = `images take ${takenBytes} of ${quotaBytes}`
  const detail = `${neededBytes} bytes are needed, ${taken}`
  return { shortBytes: overBytes, detail }
}

/**
 * The system's ways of saying that a disk or a quota is full, as the failure diskFull; else the
 * error.
 */
export function nameDiskFull(error: unknown, folder: string): unknown {
  if (!isErrno(error, 'ENOSPC') && !isErrno(error, 'EDQUOT')) return error
  return failure('diskFull', { folder, detail: 'no space left for the image' }, { cause: error })
}

/**
 * Bytes that a folder takes on its disk, as `du -s` counts them: a file with two names counts
 * once.
 */
export async function usedBytes(folder: string): Promise<number> {
  const seen = new Set<number>()
  let sum = 0
  const waiting = [folder]
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const stats = await lstat(path).catch(ignoreMissing)
    if (stats === undefined || seen.has(stats.ino)) continue
    seen.add(stats.ino)
    sum += stats.blocks * 512
    if (!stats.isDirectory()) continue
    const names = (await readdir(path).catch(ignoreMissing)) ?? []
    for (const name of names) waiting.push(join(path, name))
  }
  return sum
}

/** A file may go away while the folder is walked: an import ends, LevelDB tidies up. */
function ignoreMissing(error: unknown): undefined {
  if (isErrno(error, 'ENOENT')) return undefined
  throw error
}
