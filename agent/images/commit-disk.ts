import { type FileHandle, open, readFile, statfs } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { failure } from '../../base/errors.ts'
import { openCommitLayer } from '../../images/commit/commit-layer.ts'
import { layerFile } from '../../images/image-files.ts'
import type { ImageRecord } from '../../images/image-record.ts'
import { blockBytes } from '../../images/layer-index.ts'
import { openGuestFile } from '../../kvm/guest-file.ts'
import { type Quantity, quantityValue } from '../../resources/quantity.ts'
import type { TellProgress } from '../image-controller.ts'
import type { MachineContext } from '../machine/machine-context.ts'
import type { Tracked } from '../machine/tracked.ts'

/** What the parts of a commit need. */
export type CommitDiskComponents = Pick<MachineContext, 'limits' | 'images' | 'host'>

/** How a commit is watched and ended. */
export interface CommitWatch {
  onProgress: TellProgress
  signal: AbortSignal
}

/** What a machine wrote, as it was at one moment: a qcow2 file that nobody trusts. */
export interface DiskCopy {
  file: FileHandle
  /** Why its file systems are as after a loss of power; undefined when they are in order. */
  unfrozen?: string
  /** @throws commitRefused when it is not that moment's any more */
  check(): void
  close(): Promise<void>
}

/**
 * Copies what a guest wrote while it goes on. Of a machine that does not run it is the disk itself.
 * @throws commitRefused, diskFull, snapshotFailed, timeout, guestUnreachable, the signal's reason
 */
export async function copyDisk(
  tracked: Tracked,
  { onProgress, signal }: CommitWatch,
  { host, limits }: CommitDiskComponents,
): Promise<DiskCopy> {
  const { folder, name, record, runtime } = tracked
  if (runtime === undefined) return await openDisk(tracked)
  const qemuImage = host.qemu?.image
  if (qemuImage === undefined) {
    throw failure('commitRefused', { name, detail: 'there is no qemu-img', advice: 'Install it' })
  }
  await needRoom(folder.disk, host.roots.dataRoot, limits)
  let file: FileHandle | undefined
  const close = async (): Promise<void> => {
    await file?.close()
    await runtime.dropSnapshot()
  }
  try {
    const { unfrozen } = await runtime.takeSnapshot({
      owner: record?.user,
      qemuImage,
      onProgress: (doneBytes, totalBytes) =>
        onProgress({ stage: 'copying', doneBytes, totalBytes }),
      signal,
    })
    file = await openGuestFile(folder.snapshot)
    return { file, ...(unfrozen !== undefined && { unfrozen }), check: () => {}, close }
  } catch (error) {
    await close()
    throw error
  }
}

/** A copy takes what the disk takes: what is written meanwhile is the guest's own. */
async function needRoom(
  disk: string,
  folder: string,
  { imageReserveBytes }: CommitDiskComponents['limits'],
): Promise<void> {
  const file = await openGuestFile(disk)
  const { blocks } = await file.stat().finally(() => file.close())
  const neededBytes = blocks * 512
  const { bavail, bsize } = await statfs(folder)
  const freeBytes = bavail * bsize
  if (freeBytes >= neededBytes + imageReserveBytes) return
  const detail = `a copy of the disk takes ${neededBytes} bytes, and ${freeBytes} are free`
  throw failure('diskFull', { folder, detail })
}

/** The disk of a machine that does not run: its own file, to which no QEMU writes. */
async function openDisk(tracked: Tracked): Promise<DiskCopy> {
  const { folder, name, record } = tracked
  const runs = record?.runs
  const check = (): void => {
    // Noted before its QEMU is started, and taken back when its end was seen.
    if (!tracked.record?.startBegun && tracked.record?.runs === runs) return
    const detail = 'it is being started just now'
    throw failure('commitRefused', { name, detail, advice: 'Commit it again when it runs' })
  }
  check()
  const file = await openGuestFile(folder.disk)
  return { file, check, close: () => file.close() }
}

/** A machine's disk, as it was made: upon an image, of a size (that of the image when undefined). */
export interface CommittedDisk {
  parent: ImageRecord
  size: Quantity | undefined
}

/**
 * Makes an image of a disk and the image below it.
 * @throws imageRefused, diskFull, commitRefused, the signal's reason
 */
export async function makeImage(
  { parent, size }: CommittedDisk,
  copy: DiskCopy,
  { onProgress, signal }: CommitWatch,
  components: CommitDiskComponents,
): Promise<ImageRecord> {
  const { images } = components
  // What a guest that took over its QEMU says of the size would be ours to hold in memory.
  const madeBytes = size === undefined ? parent.virtualSizeBytes : quantityValue(size)
  const diskBytes = Math.min(components.limits.diskBytes, roundUp(madeBytes))
  const limits = { ...components.limits, diskBytes }
  const diskPath = images.diskPath(parent.digest)
  const indexes = parent.layerDigests.map((_, at) => join(dirname(diskPath), layerFile(at)))
  const layers = await Promise.all(indexes.map(path => readFile(path)))
  const disk = await open(diskPath, 'r')
  try {
    const layer = await openCommitLayer({
      snapshot: copy.file,
      parent: { disk, layers, virtualSizeBytes: parent.virtualSizeBytes },
      limits,
      onProgress: (doneBytes, totalBytes) =>
        onProgress({ stage: 'comparing', doneBytes, totalBytes }),
      signal,
    })
    try {
      copy.check()
      const { encoded: encodedLayer, readChunk } = layer
      const before = new Set(images.list().map(({ digest }) => digest))
      const derived = await images.derive({
        ...{ parent: parent.digest, encodedLayer, readChunk, signal },
      })
      if (derived.layerDigests.length <= limits.commitLayers) return derived
      try {
        return await flatten(derived, { onProgress, signal }, components)
      } finally {
        // One that was here is somebody's.
        if (!before.has(derived.digest)) await images.remove(derived.digest)
      }
    } finally {
      await layer.close()
    }
  } finally {
    await disk.close()
  }
}

/** Overlays are made of whole blocks. */
function roundUp(bytes: number): number {
  return Math.ceil(bytes / blockBytes) * blockBytes
}

/** Makes one layer of an image with very many: each costs memory, and requests when it is pulled. */
async function flatten(
  derived: ImageRecord,
  { onProgress, signal }: CommitWatch,
  { images }: CommitDiskComponents,
): Promise<ImageRecord> {
  const { digest, boot, arch, machine, firmware } = derived
  const [kernel, initrd] = [images.kernelPath(digest), images.initrdPath(digest)]
  return await images.importImage(
    { path: images.diskPath(digest) },
    {
      ...{ format: 'raw', arch, machine, firmware, onProgress, signal },
      ...(kernel !== undefined && {
        boot: {
          kernel: { path: kernel },
          ...(initrd !== undefined && { initrd: { path: initrd } }),
          ...(boot?.commandLine !== undefined && { commandLine: boot.commandLine }),
        },
      }),
    },
  )
}
