import { chmod, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { failure } from '../base/errors.ts'
import { syncFolder } from '../base/files.ts'
import { messageOf } from '../base/log.ts'
import { preparation } from './begin-image.ts'
import { nameDiskFull } from './disk-space.ts'
import { noteServable } from './find-chunk.ts'
import { hashFile } from './hash-file.ts'
import { imageFiles } from './image-files.ts'
import {
  allocatedBytes,
  contentMode,
  folderName,
  type ImageFolder,
  recordOf,
  removableBytes,
  sealDisk,
} from './image-folder.ts'
import type { ImageRecord, ImageUser } from './image-record.ts'
import { letGo } from './image-removal.ts'
import { changeState, demandUnused } from './image-users.ts'
import { type BlobKind, blobsOf, type FillingFolder } from './partial/filling-shelf.ts'
import { presentFile } from './partial/open-partial-disk.ts'
import { readPartialFolder } from './partial/partial-folder.ts'
import { runPreparation } from './partial/prepare.ts'
import type { Prepared } from './partial/prepare-messages.ts'
import { createAdmission, smallStepBytes, spoolStream } from './spool.ts'
import type { StoreContext } from './store-context.ts'
import { verified } from './verified-stream.ts'

/** An image that is on its way. */
export interface PartialImage {
  /** `allocatedBytes` is what it was when the image was begun. */
  record: ImageRecord
  /** For `Transfers.fill`; it moves when the image is complete. */
  folder: string
  users: ImageUser[]
  origin?: string
  /** Plain bytes that other images here had, when it was begun; 0 after a restart. */
  localBytes: number
  /** Parts besides the disk that have to come, with their digests. */
  missingBlobs: Map<BlobKind, string>
}

/** What the store says of an image that is on its way. */
export function partialOf(digest: string, image: FillingFolder): PartialImage {
  const { origin, users } = image.state
  const blobs = [...blobsOf(image.config)].filter(([kind]) => !image.blobs.has(kind))
  return {
    record: recordOf(digest, image),
    folder: image.path,
    users: [...users],
    ...(origin === undefined ? {} : { origin }),
    localBytes: image.localBytes,
    missingBlobs: new Map(blobs),
  }
}

/** Takes in a part besides the disk. @throws as ImageStore.storeBlob */
export async function storeBlob(
  context: StoreContext,
  digest: string,
  kind: BlobKind,
  { stream, signal }: { stream: AsyncIterable<Uint8Array>; signal: AbortSignal },
): Promise<void> {
  const image = findFilling(context, digest)
  const wanted = blobsOf(image.config).get(kind)
  if (wanted === undefined) throw failure('notFound', { resource: kind, name: digest })
  if (image.blobs.has(kind)) return
  const working = context.shelf.makeIncoming()
  const part = join(working, kind)
  try {
    const bytes = verified(stream, { digest: wanted, source: `the ${kind} of ${digest}` })
    await spoolStream(part, bytes, {
      admission: createAdmission(
        context.tools.space,
        context.init.limits.bootFileBytes,
        undefined,
        smallStepBytes,
      ),
      onProgress: () => {},
      signal,
    })
    await chmod(part, contentMode)
    await rename(part, join(findFilling(context, digest).path, imageFiles[kind]))
    await syncFolder(image.path)
    image.blobs.add(kind)
  } catch (error) {
    throw nameDiskFull(error, context.init.folder)
  } finally {
    await rm(working, { recursive: true, force: true })
  }
}

/** @throws notFound */
function findFilling({ filling }: StoreContext, digest: string): FillingFolder {
  const image = filling.images.get(digest)
  if (image === undefined) throw failure('notFound', { resource: 'images', name: digest })
  return image
}

/** Makes a whole image of one on its way. @throws as ImageStore.complete */
export async function completeImage(context: StoreContext, digest: string): Promise<ImageRecord> {
  const { shelf, filling, turns } = context
  const image = findFilling(context, digest)
  await demandComplete(context, digest, image)
  return await turns.take(async () => {
    const current = findFilling(context, digest)
    const whole = shelf.images.get(digest)
    if (whole !== undefined) {
      await takeOver(context, digest, current, whole)
    } else {
      await sealDisk(current.path)
      const layers = (await readPartialFolder(current.path, digest, context.init.limits)).encoded
      const { path, config, state } = current
      const taken = await allocatedBytes(path)
      await shelf.put({ path, config, state, allocatedBytes: taken, layers })
      await filling.take(digest)
      const here = shelf.images.get(digest)
      if (here !== undefined) {
        await rm(join(here.path, presentFile), { force: true })
        here.allocatedBytes = await allocatedBytes(here.path)
      }
    }
    const folder = shelf.images.get(digest)
    if (folder === undefined) throw failure('notFound', { resource: 'images', name: digest })
    context.components.log.info({ image: digest }, 'an image is here whole')
    return recordOf(digest, folder)
  })
}

/** The same image was imported meanwhile: its users are now those of both. */
async function takeOver(
  context: StoreContext,
  digest: string,
  current: FillingFolder,
  whole: ImageFolder,
): Promise<void> {
  const { users, pinned } = current.state
  await changeState(context, whole, state => {
    const others = state.users.filter(({ uid }) => !users.some(user => user.uid === uid))
    return { ...state, pinned: state.pinned || pinned, users: [...others, ...users] }
  })
  await clearAway(context, digest)
}

/** @throws imageFillEnded when something is not here or not right */
async function demandComplete(
  context: StoreContext,
  digest: string,
  image: FillingFolder,
): Promise<void> {
  const { presentBytes, wantedBytes } = await checkDisk(context, image)
  if (presentBytes < wantedBytes) {
    const detail = `${wantedBytes - presentBytes} bytes of its disk are not here`
    throw failure('imageFillEnded', { digest, detail })
  }
  for (const [kind, wanted] of blobsOf(image.config)) {
    const path = join(image.path, imageFiles[kind])
    if (image.blobs.has(kind) && (await hashFile(path)) === wanted) continue
    image.blobs.delete(kind)
    await rm(path, { force: true })
    throw failure('imageFillEnded', { digest, detail: `its ${kind} is not here` })
  }
}

/** Gives up an image on its way, in its turn. @throws as ImageStore.discard */
export async function discardImage(
  context: StoreContext,
  digest: string,
): Promise<{ freedBytes: number }> {
  const image = findFilling(context, digest)
  demandUnused(digest, image.state)
  const freedBytes = await removableBytes(image.path)
  await clearAway(context, digest)
  return { freedBytes }
}

async function clearAway(context: StoreContext, digest: string): Promise<void> {
  const { shelf, filling, chunks } = context
  const image = findFilling(context, digest)
  const content = await readPartialFolder(image.path, digest, context.init.limits).catch(() => {})
  const incoming = shelf.makeIncoming()
  await letGo(context, digest)
  await filling.take(digest, join(incoming, folderName(digest)))
  // The names of a whole image's chunks are the same.
  if (!shelf.images.has(digest)) {
    await chunks.remove(
      digest,
      content?.layers.flatMap(layer => layer.chunks),
    )
  }
  await rm(incoming, { recursive: true, force: true })
}

/** What of its disk is here. */
async function checkDisk(
  context: StoreContext,
  { path, config }: FillingFolder,
): Promise<Prepared> {
  const { diskBytes, layerChunks } = context.init.limits
  const bounds = { diskBytes, layerChunks }
  const task = { folder: path, config, bounds, work: 'check' as const }
  return await runPreparation(task, preparation(context, path))
}

/** Enters what a former life left of an image on its way into the index; or gives it up. */
export async function takeUpImage(context: StoreContext, digest: string): Promise<void> {
  try {
    const { servable } = await checkDisk(context, findFilling(context, digest))
    await noteServable(context, digest, servable)
  } catch (error) {
    const fields = { image: digest, error: messageOf(error) }
    context.components.log.warn(fields, 'what came of an image is damaged and comes anew')
    await clearAway(context, digest)
  }
}
