import { chmod, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { isFailure } from '../base/errors.ts'
import { syncFolder } from '../base/files.ts'
import type { Limits } from '../base/limits.ts'
import { type ConvertComponents, mapData } from './convert.ts'
import type { DiskSpace } from './disk-space.ts'
import { hashFile } from './hash-file.ts'
import { imageFiles, layerFile } from './image-files.ts'
import { contentMode, type ImageFolder, privateMode } from './image-folder.ts'
import { decodeLayerIndex, type LayerIndex } from './layer-index.ts'
import { blobsOf } from './partial/filling-shelf.ts'
import type { ScanOptions } from './scanner.ts'
import { createAdmission, smallStepBytes, spoolStream } from './spool.ts'
import { runTask } from './task-thread.ts'
import { verified } from './verified-stream.ts'
import type {
  DiskVerification,
  VerifyAnswer,
  VerifyQuestion,
  VerifyTask,
} from './verify-messages.ts'

/** Something on the disk that is not what the image's digest says. */
export interface BadPart {
  file: 'disk' | 'kernel' | 'initrd' | 'nvram' | 'layer'
  /** What should be there; for bytes where a hole should be, what is there. */
  digest: string
  /** Where in the file. */
  offset: number
  /** It is right again. */
  isRepaired?: true
}

/** What a verification found. */
export interface Verification {
  checkedChunks: number
  /**
   * Chunks of which a layer above hides a part, so that they can't be hashed, and that nobody was
   * at hand to compare with.
   */
  uncheckedChunks: number
  bad: BadPart[]
}

/** Where the right bytes come from. Nothing it gives is trusted. */
export interface RepairSource {
  /** A chunk's plain bytes; undefined, or a throw, when they can't be had. */
  fetchChunk(layerDigest: string, index: LayerIndex, number: number): Promise<Buffer | undefined>
  /** A kernel, initrd, NVRAM or layer index; undefined when it can't be had. */
  fetchBlob(digest: string): Promise<AsyncIterable<Uint8Array> | undefined>
}

/** How an image is verified. */
export interface VerifyOptions extends ScanOptions {
  /** Puts right what is wrong, in place. */
  repair?: RepairSource
}

/** What a verification needs. */
export interface VerifyComponents extends ConvertComponents {
  limits: Limits
  space: DiskSpace
  /** A folder for files on their way. */
  makeIncoming(): string
  /** A chunk's bytes out of another image here, not yet compared with its digest. */
  readElsewhere(digest: string): Promise<Buffer | undefined>
}

/**
 * Reads an image anew, in a thread of its own, and holds every byte against its digest: chunks,
 * holes (which must be zero), the layers' indexes, kernel, initrd and NVRAM.
 * @throws the signal's reason, or the system's error when something can't be read
 */
export async function verifyImage(
  components: VerifyComponents,
  image: ImageFolder,
  options: VerifyOptions,
): Promise<Verification> {
  const bad: BadPart[] = []
  const check = async (file: Exclude<BadPart['file'], 'disk'>, name: string, digest: string) => {
    const path = join(image.path, name)
    if ((await hashFile(path, options.signal)) === digest) return
    const mode = file === 'layer' ? privateMode : contentMode
    const isRepaired = await repairBlob(components, path, { digest, mode }, options)
    bad.push({ file, digest, offset: 0, ...(isRepaired ? { isRepaired } : {}) })
  }
  for (const [at, { digest }] of image.config.layers.entries()) {
    await check('layer', layerFile(at), digest)
  }
  for (const [kind, digest] of blobsOf(image.config)) await check(kind, imageFiles[kind], digest)
  if (bad.some(({ file, isRepaired }) => file === 'layer' && !isRepaired)) {
    return { checkedChunks: 0, uncheckedChunks: 0, bad }
  }
  const { bad: runs, ...counts } = await verifyDisk(components, image, options)
  for (const { digest, offset, isRepaired } of runs) {
    bad.push({ file: 'disk', digest, offset, ...(isRepaired ? { isRepaired: true as const } : {}) })
  }
  return { ...counts, bad }
}

async function verifyDisk(
  components: VerifyComponents,
  image: ImageFolder,
  { repair, signal, onProgress }: VerifyOptions,
): Promise<DiskVerification> {
  const { diskBytes, layerChunks } = components.limits
  const disk = join(image.path, imageFiles.disk)
  const file = { workingFolder: image.path, name: imageFiles.disk }
  const whole = [{ offsetBytes: 0, lengthBytes: image.config.virtualSizeBytes }]
  const task: VerifyTask = {
    folder: image.path,
    config: image.config,
    bounds: { diskBytes, layerChunks },
    ranges: (await mapData(components, file, signal)) ?? whole,
    isRepair: repair !== undefined,
  }
  const fetch = repair && createFetch(components, image, repair)
  const work = () =>
    runTask<VerifyQuestion, VerifyAnswer, DiskVerification>({
      file: new URL('./verify-worker.ts', import.meta.url),
      task,
      answer: async question =>
        (await components.readElsewhere(question.digest)) ?? (await fetch?.(question)),
      onProgress,
      signal,
    })
  if (repair === undefined) return await work()
  // Without root even its owner can't write to a file that never changes.
  await chmod(disk, 0o644)
  try {
    return await work()
  } finally {
    await chmod(disk, contentMode)
  }
}

function createFetch({ limits }: VerifyComponents, image: ImageFolder, repair: RepairSource) {
  const indexes = new Map<number, LayerIndex>()
  return async ({ layer, chunk }: VerifyQuestion): Promise<Buffer | undefined> => {
    const index =
      indexes.get(layer) ??
      decodeLayerIndex(await readFile(join(image.path, layerFile(layer))), limits)
    indexes.set(layer, index)
    const digest = image.config.layers[layer]?.digest ?? ''
    // A source that fails leaves the chunk as it is: it is told as bad.
    return await repair.fetchChunk(digest, index, chunk).catch(() => undefined)
  }
}

/** Puts a right file in the place of a wrong one; whoever has that open keeps the old bytes. */
async function repairBlob(
  { makeIncoming, space, limits }: VerifyComponents,
  path: string,
  { digest, mode }: { digest: string; mode: number },
  { repair, signal = new AbortController().signal }: VerifyOptions,
): Promise<true | undefined> {
  if (repair === undefined) return undefined
  const incoming = makeIncoming()
  const fresh = join(incoming, 'blob')
  try {
    const stream = await repair.fetchBlob(digest)
    if (stream === undefined) return undefined
    await spoolStream(fresh, verified(stream, { digest, source: 'the source of a repair' }), {
      admission: createAdmission(space, limits.bootFileBytes, undefined, smallStepBytes),
      onProgress: () => {},
      signal,
    })
    await chmod(fresh, mode)
    await rename(fresh, path)
    await syncFolder(join(path, '..'))
    return true
  } catch (error) {
    signal.throwIfAborted()
    if (isFailure(error, 'diskFull')) throw error
    return undefined
  } finally {
    await rm(incoming, { recursive: true, force: true })
  }
}
