import { chmod, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type Clock, timestamp } from '../base/clock.ts'
import type { CommandRunner } from '../base/command.ts'
import { failure } from '../base/errors.ts'
import { makeFolder } from '../base/files.ts'
import type { Limits } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Registry } from '../base/metrics.ts'
import type { Random } from '../base/random.ts'
import { createTurns, type Turns } from '../base/turns.ts'
import type { ByteSource } from './byte-source.ts'
import { type ChunkIndex, type ChunkPlace, openChunkIndex } from './chunk-index.ts'
import { createDiskSpace, nameDiskFull, usedBytes } from './disk-space.ts'
import { folderMode, type ImageFolder, imageFiles, recordOf, writeState } from './image-folder.ts'
import { createImageMetrics, type ImageMetrics } from './image-metrics.ts'
import type { ImageRecord, ImageState, ImageUser } from './image-record.ts'
import { type ImageShelf, loadImageShelf } from './image-shelf.ts'
import type { DiskImportComponents } from './import-disk.ts'
import { buildImage, type ImportOptions } from './import-image.ts'
import { createSandbox, type SandboxIdentity } from './sandbox.ts'
import type { ScanOptions } from './scanner.ts'
import { type Verification, verifyImage } from './verify-image.ts'

/** How an image store is opened. */
export interface ImageStoreInit {
  /** Everything lies in here; guests' uids must be able to pass through the folders above. */
  folder: string
  limits: Limits
  /** Path or name of qemu-img; found in the standard folders by default. */
  qemuImg?: string
  /** Who the tools run as that read files from outside; undefined when we are not root. */
  sandboxIdentity: SandboxIdentity | undefined
  /** Puts a damaged chunk index aside and makes it anew from the images. */
  rebuildIndex?: boolean
}

/** What an image store needs. */
export interface ImageStoreComponents {
  clock: Clock
  log: Log
  random: Random
  run: CommandRunner
  metrics?: Registry
}

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
   * Reads an image anew and says what is not as it should be. @throws notFound, the signal's
   * reason
   */
  verify(digest: string, options?: ScanOptions): Promise<Verification>
  /** Where a chunk's bytes are; undefined when no image here has them. */
  findChunk(digest: string): Promise<ChunkPlace | undefined>
  /** The raw disk, which is never written again. @throws notFound */
  diskPath(digest: string): string
  kernelPath(digest: string): string | undefined
  initrdPath(digest: string): string | undefined
  /** Bytes that the whole folder takes, as `du` counts them. */
  usedBytes(): Promise<number>
  /** Ends the imports under way and gives the folder free. */
  close(): Promise<void>
}

/** What the functions below share. */
interface Context {
  init: ImageStoreInit
  components: ImageStoreComponents
  tools: DiskImportComponents
  chunks: ChunkIndex
  shelf: ImageShelf
  turns: Turns
  metrics: ImageMetrics
  imports: Map<AbortController, Promise<unknown>>
}

/**
 * Opens the images in a folder, for this process alone, and clears what a crash left half done.
 * @throws storeLocked (another process has it), imageIndexCorrupt
 */
export async function openImageStore(
  init: ImageStoreInit,
  components: ImageStoreComponents,
): Promise<ImageStore> {
  const { folder, limits, sandboxIdentity: identity } = init
  makeFolder(folder, folderMode)
  await chmod(folder, folderMode)
  const log = components.log.child({ part: 'images' })
  const { clock, random, run } = components
  const chunks = await openChunkIndex(
    { folder: join(folder, 'index'), rebuild: init.rebuildIndex ?? false },
    log,
  )
  try {
    const shelf = await loadImageShelf(folder, { chunks, log, random, limits })
    const sandbox = createSandbox(run, identity)
    const space = createDiskSpace(folder, limits.imageReserveBytes)
    const tools = { clock, sandbox, space, limits, identity, qemuImg: init.qemuImg ?? 'qemu-img' }
    const metrics = createImageMetrics(components.metrics, () => shelf.images.size)
    const imports: Context['imports'] = new Map()
    const turns = createTurns()
    return createStore({ init, components, tools, chunks, shelf, turns, metrics, imports })
  } catch (error) {
    await chunks.close()
    throw error
  }
}

function createStore(context: Context): ImageStore {
  const { shelf, turns } = context
  const get = (digest: string) => {
    const image = shelf.images.get(digest)
    return image && recordOf(digest, image)
  }
  const list = () =>
    [...shelf.images]
      .map(([digest, image]) => recordOf(digest, image))
      .sort((one, other) => compareText(sortKey(one), sortKey(other)))
  const pathOf = (digest: string, file: 'disk' | 'kernel' | 'initrd') =>
    join(find(context, digest).path, imageFiles[file])
  const setPinned = (digest: string, pinned: boolean) =>
    turns.take(() => changeState(context, digest, state => ({ ...state, pinned })))
  return {
    importImage: (source, options) => admitImport(context, source, options),
    get,
    list,
    inspect(digest) {
      const image = find(context, digest)
      const extentCount = image.config.layers.reduce((sum, layer) => sum + layer.extentCount, 0)
      const users = [...image.state.users]
      const diskPath = join(image.path, imageFiles.disk)
      return { ...recordOf(digest, image), extentCount, users, diskPath }
    },
    use: (digest, owner) => turns.take(() => addUser(context, digest, owner)),
    release: (digest, ownerUid) => turns.take(() => dropUser(context, digest, ownerUid)),
    users: digest => [...(shelf.images.get(digest)?.state.users ?? [])],
    pin: digest => setPinned(digest, true),
    unpin: digest => setPinned(digest, false),
    remove: digest => turns.take(() => removeImage(context, digest)),
    prune: options => turns.take(() => pruneImages(context, list(), options?.keep)),
    verify: (digest, options) => verifyImage(context.tools, find(context, digest), options ?? {}),
    async findChunk(digest) {
      const place = await context.chunks.find(digest)
      return place && shelf.images.has(place.image) ? place : undefined
    },
    diskPath: digest => pathOf(digest, 'disk'),
    kernelPath: digest => find(context, digest).config.boot && pathOf(digest, 'kernel'),
    initrdPath: digest =>
      find(context, digest).config.boot?.initrdDigest && pathOf(digest, 'initrd'),
    usedBytes: () => usedBytes(context.init.folder),
    close: () => closeStore(context),
  }
}

function find({ shelf }: Context, digest: string): ImageFolder {
  const image = shelf.images.get(digest)
  if (image === undefined) throw failure('notFound', { resource: 'images', name: digest })
  return image
}

/** Begins an import if there is room for one more, and remembers it so that `close` can end it. */
async function admitImport(
  context: Context,
  source: ByteSource,
  options: ImportOptions,
): Promise<ImageRecord> {
  const limit = context.init.limits.imageImports
  if (context.imports.size >= limit) throw failure('tooMany', { limit, what: 'imports at once' })
  const ended = new AbortController()
  const signals = options.signal ? [options.signal, ended.signal] : [ended.signal]
  const work = runImport(context, source, { ...options, signal: AbortSignal.any(signals) })
  context.imports.set(ended, work)
  try {
    const record = await work
    context.metrics.importEnded('imported')
    return record
  } catch (error) {
    context.metrics.importEnded('failed')
    throw error
  } finally {
    context.imports.delete(ended)
  }
}

async function runImport(
  context: Context,
  source: ByteSource,
  options: ImportOptions & { signal: AbortSignal },
): Promise<ImageRecord> {
  const { shelf, turns, tools, init } = context
  options.signal.throwIfAborted()
  const incoming = shelf.makeIncoming()
  try {
    const built = await buildImage(tools, incoming, source, options)
    options.signal.throwIfAborted()
    const digest = await turns.take(() => shelf.put(built))
    const record = recordOf(digest, find(context, digest))
    context.components.log.info({ image: digest }, 'an image was imported')
    return record
  } catch (error) {
    options.signal.throwIfAborted()
    throw nameDiskFull(error, init.folder)
  } finally {
    await rm(incoming, { recursive: true, force: true })
  }
}

async function changeState(
  context: Context,
  digest: string,
  change: (state: ImageState) => ImageState,
): Promise<void> {
  const image = find(context, digest)
  const state = change(image.state)
  try {
    await writeState(image.path, state)
  } catch (error) {
    throw nameDiskFull(error, context.init.folder)
  }
  image.state = state
}

async function addUser(context: Context, digest: string, owner: ImageUser): Promise<void> {
  const { users } = find(context, digest).state
  if (users.some(({ uid, name }) => uid === owner.uid && name === owner.name)) return
  const others = users.filter(({ uid }) => uid !== owner.uid)
  const lastUsedAt = timestamp(context.components.clock)
  const user = { uid: owner.uid, name: owner.name }
  await changeState(context, digest, state => ({ ...state, lastUsedAt, users: [...others, user] }))
}

async function dropUser(context: Context, digest: string, ownerUid: string): Promise<void> {
  const users = context.shelf.images.get(digest)?.state.users ?? []
  const others = users.filter(({ uid }) => uid !== ownerUid)
  if (others.length === users.length) return
  const lastUsedAt = timestamp(context.components.clock)
  await changeState(context, digest, state => ({ ...state, lastUsedAt, users: others }))
}

/** Users named in an error; the rest are counted. */
const usersNamed = 10

async function removeImage(context: Context, digest: string): Promise<{ freedBytes: number }> {
  const { users, pinned } = find(context, digest).state
  if (users.length > 0) {
    const named = users.slice(0, usersNamed).map(({ name }) => name)
    const more = users.length > usersNamed ? [`${users.length - usersNamed} more`] : []
    throw failure('imageInUse', { digest, users: [...named, ...more].join(', ') })
  }
  if (pinned) throw failure('imagePinned', { digest })
  const freedBytes = await context.shelf.take(digest)
  context.components.log.info({ image: digest, freedBytes }, 'an image was removed')
  return { freedBytes }
}

async function pruneImages(
  context: Context,
  records: ImageRecord[],
  keep: (record: ImageRecord) => boolean = () => false,
): Promise<{ removed: ImageRecord[]; freedBytes: number }> {
  const removed: ImageRecord[] = []
  let freedBytes = 0
  for (const record of records) {
    const inUse = find(context, record.digest).state.users.length > 0
    if (inUse || record.pinned || keep(record)) continue
    freedBytes += (await removeImage(context, record.digest)).freedBytes
    removed.push(record)
  }
  return { removed, freedBytes }
}

async function closeStore(context: Context): Promise<void> {
  const reason = failure('unavailable', {
    what: 'the image store',
    detail: 'it is being closed',
    advice: 'Import the image again',
  })
  const imports = [...context.imports]
  for (const [ended] of imports) ended.abort(reason)
  await Promise.allSettled(imports.map(([, work]) => work))
  await context.turns.take(() => context.chunks.close())
}

function sortKey({ importedAt, digest }: ImageRecord): string {
  return `${importedAt} ${digest}`
}

function compareText(one: string, other: string): number {
  if (one === other) return 0
  return one < other ? -1 : 1
}
