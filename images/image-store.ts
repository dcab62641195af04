import { chmod } from 'node:fs/promises'
import { join } from 'node:path'
import { failure } from '../base/errors.ts'
import { makeFolder } from '../base/files.ts'
import { createTurns } from '../base/turns.ts'
import { beginImage, type ImageContent } from './begin-image.ts'
import type { ByteSource } from './byte-source.ts'
import { type ChunkIndex, openChunkIndex } from './chunk-index.ts'
import { type Derivation, deriveImage } from './derive-image.ts'
import { createDiskSpace, usedBytes } from './disk-space.ts'
import {
  completeImage,
  discardImage,
  type PartialImage,
  partialOf,
  storeBlob,
  takeUpImage,
} from './filling-images.ts'
import { type ChunkPlace, findChunk, noteChunks, readElsewhere } from './find-chunk.ts'
import { imageFiles } from './image-files.ts'
import { folderMode, recordOf } from './image-folder.ts'
import { createImageMetrics } from './image-metrics.ts'
import type { ImageRecord, ImageUser } from './image-record.ts'
import { makeRoom, pruneImages, removeImage } from './image-removal.ts'
import { loadImageShelf } from './image-shelf.ts'
import { addUser, changeState, dropUser } from './image-users.ts'
import type { ImportOptions } from './import-image.ts'
import { type BlobKind, blobsOf, loadFillingShelf } from './partial/filling-shelf.ts'
import { createSandbox } from './sandbox.ts'
import {
  findAny,
  findWhole,
  type ImageStoreComponents,
  type ImageStoreInit,
  type StoreContext,
  whileCopied,
} from './store-context.ts'
import { admitImport } from './store-imports.ts'
import { type Verification, type VerifyOptions, verifyImage } from './verify-image.ts'

/** More about an image than its record. */
export interface ImageDetails extends ImageRecord {
  /** Runs of data on the disk. */
  extentCount: number
  users: ImageUser[]
  diskPath: string
}

/** The images on this host: disks that never change, named by the digest of their content. */
export interface ImageStore {
  /**
   * Takes in a disk. The same content twice is the same image, stored once.
   * @throws imageRefused, imageSourceUnreadable, diskFull, tooMany, commandMissing, the signal's
   * reason
   */
  importImage(source: ByteSource, options: ImportOptions): Promise<ImageRecord>
  get(digest: string): ImageRecord | undefined
  /** Oldest first. */
  list(): ImageRecord[]
  /** @throws notFound */
  inspect(digest: string): ImageDetails
  /**
   * Says, durably, that `owner` needs the image. Saying it again changes nothing. @throws notFound
   */
  use(digest: string, owner: ImageUser): Promise<void>
  /** Takes that back; nothing happens when it was not said or the image is gone. */
  release(digest: string, ownerUid: string): Promise<void>
  users(digest: string): ImageUser[]
  /** Keeps an image from `remove` and `prune`. @throws notFound */
  pin(digest: string): Promise<void>
  /** @throws notFound */
  unpin(digest: string): Promise<void>
  /** Frees an image's space. @throws imageInUse (with who uses it), imagePinned, notFound */
  remove(digest: string): Promise<{ freedBytes: number }>
  /** Removes what nobody uses, pinned or wants to keep. */
  prune(options?: { keep?: (record: ImageRecord) => boolean }): Promise<{
    removed: ImageRecord[]
    freedBytes: number
  }>
  /**
   * Reads an image anew and says what is not as it should be; with `repair` it puts that right, in
   * place and with verified bytes only, whoever uses it. @throws notFound, the signal's reason
   */
  verify(digest: string, options?: VerifyOptions): Promise<Verification>
  /** Where a chunk's bytes are; undefined when no image here has them. Hash them when you read. */
  findChunk(digest: string): Promise<ChunkPlace | undefined>
  /** The raw disk of a whole image, which is never written again. @throws notFound */
  diskPath(digest: string): string
  /** Undefined while it is on its way, or when the image has none. @throws notFound */
  kernelPath(digest: string): string | undefined
  initrdPath(digest: string): string | undefined
  nvramPath(digest: string): string | undefined

  /**
   * Makes an image of one that is here and a layer upon it; the rest is as the parent has it.
   * @throws chunkInvalid, layerIndexInvalid, imageConfigInvalid, diskFull, notFound, what
   * `readChunk` throws, the signal's reason
   */
  derive(derivation: Derivation): Promise<ImageRecord>

  /**
   * Begins an image that comes from elsewhere, or takes it up: a folder to be filled, with whatever
   * of it other images here have.
   * @returns undefined when it is here whole
   * @throws imageConfigInvalid and layerIndexInvalid when its parts do not fit, diskFull, tooMany,
   * the signal's reason
   */
  begin(content: ImageContent, signal?: AbortSignal): Promise<PartialImage | undefined>
  /** Images that are on their way; `get` and `list` know whole ones only. */
  partials(): PartialImage[]
  partial(digest: string): PartialImage | undefined
  /**
   * Takes in a kernel, initrd or NVRAM of an image on its way.
   * @throws contentDiffers, imageRefused (tooLarge), diskFull, notFound, the signal's reason
   */
  storeBlob(
    digest: string,
    kind: BlobKind,
    content: { stream: AsyncIterable<Uint8Array>; signal: AbortSignal },
  ): Promise<void>
  /** Lets others find chunks of an image on its way that are durable (`PartialDisk.flush`). */
  noteChunks(digest: string, layer: number, chunks: readonly number[]): Promise<void>
  /**
   * Makes a whole image of one that has all it needs; nobody may have its disk open for writing.
   * Its users stay.
   * @throws imageFillEnded when something is missing, diskFull, notFound
   */
  complete(digest: string): Promise<ImageRecord>
  /** Gives up an image on its way. @throws imageInUse, imagePinned, notFound */
  discard(digest: string): Promise<{ freedBytes: number }>
  /**
   * Removes images that can be spared until so many bytes more can be written, those first that
   * were not used for the longest. Imports and `begin` do this by themselves.
   */
  makeRoom(neededBytes: number): Promise<{ removed: ImageRecord[]; freedBytes: number }>
  /**
   * Calls back when an image has become whole here, wherever it came from.
   * @returns to be called to end it
   */
  onWhole(listener: (digest: string) => void): () => void
  /** Bytes that the whole folder takes, as `du` counts them. */
  usedBytes(): Promise<number>
  /** Ends the imports under way and gives the folder free. */
  close(): Promise<void>
}

/**
 * Opens the images in a folder, for this process alone, and clears what a crash left half done.
 * @throws storeLocked (another process has it), imageIndexCorrupt
 */
export async function openImageStore(
  init: ImageStoreInit,
  components: ImageStoreComponents,
): Promise<ImageStore> {
  const { folder } = init
  makeFolder(folder, folderMode)
  await chmod(folder, folderMode)
  const log = components.log.child({ part: 'images' })
  const chunks = await openChunkIndex(
    { folder: join(folder, 'index'), rebuild: init.rebuildIndex ?? false },
    log,
  )
  try {
    const context = await loadContext(init, { ...components, log }, chunks)
    return createStore(context)
  } catch (error) {
    await chunks.close()
    throw error
  }
}

async function loadContext(
  init: ImageStoreInit,
  components: ImageStoreComponents,
  chunks: ChunkIndex,
): Promise<StoreContext> {
  const { folder, limits, sandboxIdentity: identity } = init
  const { clock, log, random, run } = components
  const filling = await loadFillingShelf(join(folder, 'filling'), log)
  const { images } = filling
  const loaded = await loadImageShelf(folder, { filling: images, chunks, log, random, limits })
  const onWhole = new Set<(digest: string) => void>()
  const shelf = {
    ...loaded,
    async put(built: Parameters<typeof loaded.put>[0]) {
      const digest = await loaded.put(built)
      for (const listener of onWhole) listener(digest)
      return digest
    },
  }
  const space = createDiskSpace({
    folder,
    reserveBytes: limits.imageReserveBytes,
    quotaBytes: limits.imageQuotaBytes,
    makeRoom: neededBytes => makeRoom(context, neededBytes),
  })
  const sandbox = createSandbox(run, identity)
  const tools = { clock, sandbox, space, limits, identity, qemuImg: init.qemuImg ?? 'qemu-img' }
  const context: StoreContext = {
    ...{ init, components, tools, chunks, shelf, filling, onWhole },
    turns: createTurns(),
    metrics: createImageMetrics(components.metrics, () => shelf.images.size),
    ...{ works: new Map(), imports: new Set(), begins: new Map(), copied: new Map() },
  }
  for (const digest of [...images.keys()]) await takeUpImage(context, digest)
  return context
}

function createStore(context: StoreContext): ImageStore {
  const { shelf, filling, turns } = context
  const list = () =>
    [...shelf.images]
      .map(([digest, image]) => recordOf(digest, image))
      .sort((one, other) => compareText(sortKey(one), sortKey(other)))
  const setPinned = (digest: string, pinned: boolean) =>
    turns.take(() =>
      changeState(context, findAny(context, digest), state => ({ ...state, pinned })),
    )
  return {
    ...createLookups(context),
    onWhole(listener) {
      context.onWhole.add(listener)
      return () => context.onWhole.delete(listener)
    },
    ...createFillings(context),
    importImage: (source, options) => admitImport(context, source, options),
    derive: derivation => deriveImage(context, derivation),
    list,
    use: (digest, owner) => turns.take(() => addUser(context, digest, owner)),
    release: (digest, ownerUid) => turns.take(() => dropUser(context, digest, ownerUid)),
    users: digest => [
      ...((filling.images.get(digest) ?? shelf.images.get(digest))?.state.users ?? []),
    ],
    pin: digest => setPinned(digest, true),
    unpin: digest => setPinned(digest, false),
    remove: digest => turns.take(() => removeImage(context, digest)),
    prune: options => turns.take(() => pruneImages(context, list(), options?.keep)),
    makeRoom: neededBytes => makeRoom(context, neededBytes),
    verify: (digest, options) => verifyWhole(context, digest, options ?? {}),
    close: () => closeStore(context),
  }
}

async function verifyWhole(
  context: StoreContext,
  digest: string,
  options: VerifyOptions,
): Promise<Verification> {
  const image = findWhole(context, digest)
  const components = {
    ...context.tools,
    makeIncoming: () => context.shelf.makeIncoming(),
    readElsewhere: (chunk: string) => readElsewhere(context, chunk, image),
  }
  return await whileCopied(context, digest, () => verifyImage(components, image, options))
}

type Lookups = Pick<
  ImageStore,
  'get' | 'inspect' | 'diskPath' | 'kernelPath' | 'initrdPath' | 'nvramPath' | 'usedBytes'
>

function createLookups(context: StoreContext): Lookups {
  const blobPath = (digest: string, kind: BlobKind) => {
    const image = findAny(context, digest)
    if (!blobsOf(image.config).has(kind)) return undefined
    const isHere = context.filling.images.get(digest)?.blobs.has(kind) ?? true
    return isHere ? join(image.path, imageFiles[kind]) : undefined
  }
  const diskPath = (digest: string) => join(findWhole(context, digest).path, imageFiles.disk)
  return {
    get(digest) {
      const image = context.shelf.images.get(digest)
      return image && recordOf(digest, image)
    },
    inspect(digest) {
      const image = findWhole(context, digest)
      const extentCount = image.config.layers.reduce((sum, layer) => sum + layer.extentCount, 0)
      const users = [...image.state.users]
      return { ...recordOf(digest, image), extentCount, users, diskPath: diskPath(digest) }
    },
    diskPath,
    kernelPath: digest => blobPath(digest, 'kernel'),
    initrdPath: digest => blobPath(digest, 'initrd'),
    nvramPath: digest => blobPath(digest, 'nvram'),
    usedBytes: () => usedBytes(context.init.folder),
  }
}

type Fillings = Pick<
  ImageStore,
  | 'begin'
  | 'partials'
  | 'partial'
  | 'storeBlob'
  | 'noteChunks'
  | 'complete'
  | 'discard'
  | 'findChunk'
>

function createFillings(context: StoreContext): Fillings {
  const { images } = context.filling
  const partial = (digest: string) => {
    const image = images.get(digest)
    return image && partialOf(digest, image)
  }
  return {
    begin: async (content, signal) => partial(await beginImage(context, content, signal)),
    partials: () => Array.from(images, ([digest, image]) => partialOf(digest, image)),
    partial,
    storeBlob: (digest, kind, content) => storeBlob(context, digest, kind, content),
    noteChunks: (digest, layer, chunks) => noteChunks(context, digest, layer, chunks),
    complete: digest => completeImage(context, digest),
    discard: digest => context.turns.take(() => discardImage(context, digest)),
    findChunk: digest => findChunk(context, digest),
  }
}

async function closeStore(context: StoreContext): Promise<void> {
  const reason = failure('unavailable', {
    what: 'the image store',
    detail: 'it is being closed',
    advice: 'Import the image again',
  })
  const works = [...context.works]
  for (const [ended] of works) ended.abort(reason)
  await Promise.allSettled(works.map(([, work]) => work))
  await context.turns.take(() => context.chunks.close())
}

function sortKey({ importedAt, digest }: ImageRecord): string {
  return `${importedAt} ${digest}`
}

function compareText(one: string, other: string): number {
  if (one === other) return 0
  return one < other ? -1 : 1
}
