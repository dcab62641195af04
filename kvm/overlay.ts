import { lstat, open, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { CommandRunner } from '../base/command.ts'
import { failure } from '../base/errors.ts'
import { isErrno, syncFolder } from '../base/files.ts'
import type { GuestFolder } from './guest-folder.ts'
import { setOwner, type UserIdentity } from './guest-user.ts'

/** What makes disk files: the program qemu-img and something that runs it. */
export interface DiskToolComponents {
  qemuImage: string
  run: CommandRunner
}

/** A guest's disk to be made. */
export interface OverlayInit {
  folder: GuestFolder
  /** What the guest sees, in bytes; rounded up to whole 4 KiB. */
  sizeBytes: number
  /** Virtual size in bytes of the image behind it; 0 when there is none. */
  imageBytes: number
  owner: UserIdentity | undefined
}

const timeoutMs = 30_000

/**
 * Makes a guest's disk unless it is there: a qcow2 file in which the guest's writes are kept.
 * Clusters of 128 KiB with subclusters of 4 KiB (`extended_l2`) keep scattered small writes small.
 * Its header names no backing file: which image is behind it stands in the guest's record and on
 * QEMU's command line, so there is no name in it to trust.
 * @throws diskTooSmall, commandFailed
 */
export async function createOverlay(
  init: OverlayInit,
  components: DiskToolComponents,
): Promise<void> {
  const { folder, sizeBytes, imageBytes, owner } = init
  if (sizeBytes < imageBytes) {
    throw failure('diskTooSmall', { diskBytes: sizeBytes, imageBytes })
  }
  const roundedBytes = Math.ceil(sizeBytes / 4096) * 4096
  await createOnce(folder, folder.disk, owner, temporary =>
    createQcow2(temporary, roundedBytes, components),
  )
}

/**
 * Makes the file that a guest's disk is copied to, empty, in the place of an earlier one. As the
 * overlay it keeps what is smaller than a cluster small, and its header names no other file.
 * @throws commandFailed
 */
export async function createSnapshotFile(
  { folder, owner, sizeBytes }: Pick<OverlayInit, 'folder' | 'owner' | 'sizeBytes'>,
  components: DiskToolComponents,
): Promise<void> {
  await replaceFile(folder, folder.snapshot, owner, temporary =>
    createQcow2(temporary, sizeBytes, components),
  )
}

function createQcow2(path: string, sizeBytes: number, components: DiskToolComponents) {
  const options = 'cluster_size=128k,extended_l2=on'
  const args = ['create', '-q', '-f', 'qcow2', '-o', options, path, String(sizeBytes)]
  return components.run(components.qemuImage, args, { timeoutMs })
}

/**
 * Makes a file of the guest's by a program, so that after a crash it is there whole or not at all.
 * A file that is there stays as it is. It is made in the outer folder, where the guest can't
 * interfere.
 * @param create writes the temporary file that it is given
 */
export async function createOnce(
  folder: GuestFolder,
  path: string,
  owner: UserIdentity | undefined,
  create: (temporary: string) => Promise<unknown>,
): Promise<void> {
  if (await exists(path)) return
  await replaceFile(folder, path, owner, create)
}

/** As `createOnce`, in the place of a file that is there. */
export async function replaceFile(
  folder: GuestFolder,
  path: string,
  owner: UserIdentity | undefined,
  create: (temporary: string) => Promise<unknown>,
): Promise<void> {
  const temporary = join(folder.path, `${basename(path)}.tmp`)
  await rm(temporary, { force: true })
  await create(temporary)
  const handle = await open(temporary, 'r')
  try {
    await handle.chmod(0o600)
    await handle.sync()
  } finally {
    await handle.close()
  }
  await setOwner(temporary, owner)
  await rename(temporary, path)
  await syncFolder(dirname(path))
}

/** Whether there is anything of this name, a dangling link included. */
export async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path)
    return true
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false
    throw error
  }
}
