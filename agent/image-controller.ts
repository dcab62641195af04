import { existsSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import type { Clock } from '../base/clock.ts'
import { failure, isFailure, messageOf } from '../base/errors.ts'
import type { Limits } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import { type Again, createWorkQueue, type WorkQueue } from '../base/work-queue.ts'
import type { EventRecorder } from '../cluster/event-recorder.ts'
import { heldBy, holdersOf, withoutFilling } from '../cluster/image-holders.ts'
import { type Following, followObjects } from '../cluster/object-follow.ts'
import type { Guard, Objects } from '../cluster/objects.ts'
import type { ImageRecord } from '../images/image-record.ts'
import type { ImageStore } from '../images/image-store.ts'
import type { ImportProgress } from '../images/import-disk.ts'
import type { ImagePart, UploadRequest } from '../interface/api/subresources.ts'
import { hostKind } from '../resources/host.ts'
import { type Image, imageKind } from '../resources/image.ts'
import {
  failedStatus,
  type ImageStatus,
  missingStatus,
  readyStatus,
} from './images/image-status.ts'
import { spoolPart } from './images/spool-part.ts'

/** What the image controller needs. */
export interface ImageControllerComponents {
  clock: Clock
  log: Log
  limits: Limits
  objects: Objects
  events: EventRecorder
  images: ImageStore
  hostName: string
  /** Where uploads wait that are only part of an image. Emptied at every start. */
  uploads: string
}

/** Keeps the images of this host in step with the Image objects in the store. */
export interface ImageController {
  /** Takes a part of an image that a client sends. */
  receive(image: Image, part: ImagePart, bytes: Readable, request: UploadRequest): Promise<Image>
  /**
   * Gives an image that has no content what `make` puts into the store of images; when that fails,
   * the image says why.
   */
  fill(image: Image, make: MakeImage): Promise<Image>
  /** Tells anew who uses what. */
  refresh(): void
  stop(): Promise<void>
}

/** Puts an image into the store of images, and says how far it is. */
export type MakeImage = (onProgress: TellProgress) => Promise<ImageRecord>

/** Told as often as one likes: what comes too fast is dropped. */
export type TellProgress = (progress: Progress) => void

/** How far it is; `stage` is a word for people. */
export type Progress = Omit<ImportProgress, 'stage'> & { stage: string }

/** How often the progress of an import is written to the store. */
const progressMs = 500
/** How often an image that is to go is looked at while somebody needs or holds it. */
const heldRetryMs = 5000
/** How often one is looked at that was on its way here. */
const partialRetryMs = 500
/** Stands in the queue for what is done at a start. */
const takingUp = 'start'
/** Users named in an error; the rest are counted. */
const usersNamed = 10

/** Refuses to delete an image that disks lie upon. */
export function imageGuard(images: ImageStore): Guard<Image> {
  return {
    kind: imageKind,
    async remove(image) {
      const digest = image.status?.digest
      if (image.spec.pinned) throw failure('imagePinned', { digest: image.metadata.name })
      const here = digest === undefined ? [] : images.users(digest).map(user => user.name)
      const users = [...new Set([...here, ...(image.status?.users ?? [])])]
      if (users.length === 0) return []
      const more = users.length > usersNamed ? [`${users.length - usersNamed} more`] : []
      const names = [...users.slice(0, usersNamed), ...more].join(', ')
      throw failure('imageInUse', { digest: image.metadata.name, users: names })
    },
  }
}

/** Takes up what a killed daemon left, and begins to work. */
export async function startImageController(
  components: ImageControllerComponents,
): Promise<ImageController> {
  const controller = new Controller(components)
  await controller.start()
  return controller
}

class Controller implements ImageController {
  readonly #components: ImageControllerComponents
  readonly #queue: WorkQueue
  #following: Following | undefined
  /** Images whose content comes in just now, by uid. */
  readonly #receiving = new Set<string>()
  readonly #known = new Map<string, { namespace: string; name: string }>()

  constructor(components: ImageControllerComponents) {
    this.#components = components
    this.#queue = createWorkQueue(
      { handle: uid => this.#handle(uid), backoff: { firstMs: 500, mostMs: 30_000 } },
      components,
    )
  }

  async start(): Promise<void> {
    const { uploads } = this.#components
    await rm(uploads, { recursive: true, force: true })
    await mkdir(uploads, { recursive: true, mode: 0o700 })
    try {
      await this.#takeUp()
    } catch (error) {
      // A host of a fleet starts while its store is away: it has guests to look after.
      this.#components.log.warn({ error: messageOf(error) }, 'the images are looked at later')
      this.#queue.add(takingUp)
    }
  }

  /** What the daemon before this one left. */
  async #takeUp(): Promise<void> {
    const { objects, hostName } = this.#components
    const { items } = await objects.list(imageKind)
    const interrupted = items.filter(
      ({ spec, status }) =>
        // What has a source is fetched again by itself.
        spec.source === undefined &&
        status?.phase === 'Importing' &&
        (status.importer ?? hostName) === hostName,
    )
    for (const image of interrupted) await this.#interrupted(image)
    await this.#dropNameless(items, interrupted)
    this.#following = followObjects(imageKind, this.#components, image => this.#seen(image))
  }

  /** Until then nobody knows which imports are unfinished ones of before. */
  #assertTakenUp(): void {
    if (this.#following !== undefined) return
    throw failure('unavailable', {
      what: 'importing',
      detail: 'the store has not been reached since the daemon started',
      advice: 'Try again when `macfleet cluster status` says that it is',
    })
  }

  /**
   * Content whose import was cut off between its last byte and its name. What is older than every
   * import that was cut off is left alone: then it is the store that lost an Image.
   */
  async #dropNameless(all: readonly Image[], interrupted: readonly Image[]): Promise<void> {
    const { images, log } = this.#components
    const named = new Set(all.map(image => image.status?.digest))
    const created = interrupted.map(image => Date.parse(image.metadata.creationTimestamp ?? ''))
    const begunMs = Math.min(Number.POSITIVE_INFINITY, ...created)
    for (const { digest, importedAt, pinned } of images.list()) {
      if (named.has(digest) || pinned || images.users(digest).length > 0) continue
      if (!(Date.parse(importedAt) >= begunMs)) {
        log.error({ digest }, 'this host has the content of an image that is not in the store')
        continue
      }
      await images.remove(digest)
      log.info({ digest }, 'removed what an interrupted import left')
    }
  }

  refresh(): void {
    for (const uid of this.#known.keys()) this.#queue.add(uid)
  }

  async stop(): Promise<void> {
    await this.#following?.stop()
    await this.#queue.stop()
  }

  async receive(
    image: Image,
    part: ImagePart,
    bytes: Readable,
    request: UploadRequest,
  ): Promise<Image> {
    this.#assertTakenUp()
    const { uid = '', name, deletionTimestamp } = image.metadata
    if (deletionTimestamp !== undefined) throw failure('notFound', { resource: 'images', name })
    const { digest, phase } = image.status ?? {}
    // Another host's content may be brought here too, if it is the same.
    if (phase === 'Ready' && digest !== undefined && this.#components.images.get(digest)) {
      throw failure('alreadyExists', { resource: 'the content of image', name })
    }
    return await this.#alone(image, async () => {
      if (part === 'content') return await this.#receiveContent(image, bytes, request)
      const { limits } = this.#components
      await spoolPart(this.#uploadOf(uid, part), bytes, limits.bootFileBytes, request.signal)
      return image
    })
  }

  async fill(image: Image, make: MakeImage): Promise<Image> {
    this.#assertTakenUp()
    const { name } = image.metadata
    if (image.status?.digest !== undefined) {
      throw failure('alreadyExists', { resource: 'the content of image', name })
    }
    return await this.#alone(image, () => this.#takeContent(image, make))
  }

  /** Content of one image comes from one side at a time. */
  async #alone(image: Image, work: () => Promise<Image>): Promise<Image> {
    const { uid = '', name } = image.metadata
    if (this.#receiving.has(uid)) {
      throw failure('conflict', { resource: 'the content of image', name })
    }
    this.#receiving.add(uid)
    try {
      return await work()
    } finally {
      this.#receiving.delete(uid)
    }
  }

  async #dropUploads(uid: string): Promise<void> {
    const paths = [this.#uploadOf(uid, 'kernel'), this.#uploadOf(uid, 'initrd')]
    await Promise.all(paths.map(path => rm(path, { force: true })))
  }

  #uploadOf(uid: string, part: ImagePart): string {
    return join(this.#components.uploads, `${uid}.${part}`)
  }

  async #receiveContent(image: Image, bytes: Readable, request: UploadRequest): Promise<Image> {
    const { uid = '' } = image.metadata
    const [kernel, initrd] = [this.#uploadOf(uid, 'kernel'), this.#uploadOf(uid, 'initrd')]
    const source = {
      stream: bytes,
      ...(request.sizeBytes !== undefined && { sizeBytes: request.sizeBytes }),
    }
    const { arch, firmware, machine } = image.spec
    try {
      return await this.#takeContent(image, onProgress =>
        this.#components.images.importImage(source, {
          ...{ format: request.format, arch, firmware, machine, onProgress },
          boot: this.#bootOf(image, kernel, initrd),
          signal: request.signal,
        }),
      )
    } finally {
      await this.#dropUploads(uid)
    }
  }

  async #takeContent(image: Image, make: MakeImage): Promise<Image> {
    const { events, hostName } = this.#components
    const { uid = '', name } = image.metadata
    const wanted = image.status?.phase === 'Ready' ? image.status.digest : undefined
    try {
      const told = await this.#tell(image, status =>
        wanted === undefined ? { phase: 'Importing', importer: hostName } : status,
      )
      if (told === undefined) throw failure('notFound', { resource: 'images', name })
      const record = await make(this.#progressTeller(image))
      if (wanted !== undefined && record.digest !== wanted) {
        await this.#free(record.digest, '')
        throw failure('imageDiffers', { name, wanted, found: record.digest })
      }
      const done = await this.#tell(image, status =>
        readyStatus(record.digest, status, this.#components),
      )
      if (done === undefined) {
        await this.#free(record.digest, uid)
        throw failure('notFound', { resource: 'images', name })
      }
      // The deletion of another Image with the same content was faster.
      if (done.status?.phase !== 'Ready') {
        throw failure('imageContentMissing', { name, digest: record.digest })
      }
      const message = `Imported ${record.format}, ${record.chunkCount} chunks`
      events.record(image, { type: 'Normal', reason: 'Imported', message })
      return done
    } catch (error) {
      // What others hold is as good as it was.
      if (wanted !== undefined) throw error
      await this.#failed(image, error).catch(second => {
        this.#components.log.warn({ uid, error: messageOf(second) }, 'a failure was not told')
      })
      throw error
    }
  }

  #bootOf(image: Image, kernel: string, initrd: string) {
    if (!existsSync(kernel)) return undefined
    const commandLine = image.spec.kernelCommandLine
    return {
      kernel: { path: kernel },
      ...(existsSync(initrd) && { initrd: { path: initrd } }),
      ...(commandLine !== undefined && { commandLine }),
    }
  }

  /** Progress reaches the store now and then; what comes between is dropped. */
  #progressTeller(image: Image): TellProgress {
    const { clock } = this.#components
    let toldMs = Number.NEGATIVE_INFINITY
    let writing = false
    return progress => {
      if (writing || clock.monotonicMs() - toldMs < progressMs) return
      writing = true
      const { stage, doneBytes, totalBytes } = progress
      const told = { stage, doneBytes, ...(totalBytes !== undefined && { totalBytes }) }
      void this.#tell(image, status =>
        status?.phase === 'Importing' ? { ...status, progress: told } : status,
      )
        .catch(() => {})
        .finally(() => {
          toldMs = clock.monotonicMs()
          writing = false
        })
    }
  }

  #tell(
    image: Image,
    mutate: (status: ImageStatus | undefined) => ImageStatus | undefined,
  ): Promise<Image | undefined> {
    const { objects } = this.#components
    const { uid } = image.metadata
    return objects.changeStatus(imageKind, image.metadata, mutate, uid === undefined ? {} : { uid })
  }

  async #failed(image: Image, error: unknown): Promise<void> {
    const { clock, events } = this.#components
    const message = messageOf(error)
    events.record(image, { type: 'Warning', reason: 'ImportFailed', message })
    await this.#tell(image, status => failedStatus(status, message, clock))
  }

  #interrupted(image: Image): Promise<void> {
    return this.#failed(image, new Error('The daemon ended during the import. Import it again'))
  }

  #seen(image: Image): void {
    const { uid, namespace, name } = image.metadata
    if (uid === undefined || namespace === undefined) return
    this.#known.set(uid, { namespace, name })
    this.#queue.add(uid)
  }

  async #handle(uid: string): Promise<Again> {
    if (uid === takingUp) {
      await this.#takeUp()
      return undefined
    }
    const reference = this.#known.get(uid)
    if (reference === undefined) return undefined
    // Looked at before the image is read: an import that has just ended is seen with its digest.
    if (this.#receiving.has(uid)) return { againMs: 500 }
    const image = await this.#components.objects.find(imageKind, reference)
    if (image === undefined || image.metadata.uid !== uid) {
      this.#known.delete(uid)
      return undefined
    }
    if (image.metadata.deletionTimestamp !== undefined) return await this.#destroy(image)
    const digest = image.status?.digest
    if (digest === undefined) return undefined
    await this.#keepPin(digest, image.spec.pinned)
    await this.#tell(image, status => {
      if (status?.digest !== digest) return status
      const { images } = this.#components
      if (images.get(digest) === undefined) return missingStatus(image, status, this.#components)
      return readyStatus(digest, status, this.#components)
    })
    return undefined
  }

  async #keepPin(digest: string, wanted: boolean): Promise<void> {
    const { images } = this.#components
    const record = images.get(digest)
    if (record === undefined || record.pinned === wanted) return
    await (wanted ? images.pin(digest) : images.unpin(digest))
  }

  /** Frees the content, then lets the object go. */
  async #destroy(image: Image): Promise<Again> {
    const { uid = '' } = image.metadata
    const digest = image.status?.digest
    try {
      const isFree = digest === undefined || (await this.#free(digest, uid))
      // The pull controller gives it up, once no machine lies upon it.
      const isUsed = this.#components.images.users(digest ?? '').length > 0
      if (!isFree) return { againMs: isUsed ? heldRetryMs : partialRetryMs }
    } catch (error) {
      // A machine was faster: its disk needs the content, so the deletion waits for it.
      if (isFailure(error, 'imageInUse')) return { againMs: heldRetryMs }
      throw error
    }
    await this.#dropUploads(uid)
    // Its holder may be forgotten, which changes no image.
    if (await this.#isHeldElsewhere(image)) return { againMs: heldRetryMs }
    const finalizer = imageKind.finalizer ?? ''
    await this.#components.objects.releaseFinalizer(imageKind, image.metadata, finalizer, uid)
    this.#known.delete(uid)
    return undefined
  }

  /** Takes this host out of those that have it. @returns whether another of the fleet is left */
  async #isHeldElsewhere(image: Image): Promise<boolean> {
    const { objects, hostName } = this.#components
    const told = await this.#tell(image, status => {
      if (status === undefined) return undefined
      const others = holdersOf(status).filter(({ host }) => host !== hostName)
      return { ...withoutFilling(status, hostName), ...heldBy(others) }
    })
    const holders = [...holdersOf(told?.status), ...(told?.status?.filling ?? [])]
    if (holders.length === 0) return false
    const { items } = await objects.list(hostKind)
    const hosts = new Set(items.map(({ metadata }) => metadata.name))
    return holders.some(({ host }) => hosts.has(host))
  }

  /**
   * Removes content that no Image names but the one with that uid.
   * @returns false while it is on its way here @throws imageInUse
   */
  async #free(digest: string, uid: string): Promise<boolean> {
    const { objects, images } = this.#components
    const { items } = await objects.list(imageKind)
    const isShared = items.some(
      other => other.metadata.uid !== uid && other.status?.digest === digest,
    )
    if (isShared) return true
    if (images.get(digest) === undefined) return images.partial(digest) === undefined
    if (images.get(digest)?.pinned) await images.unpin(digest)
    await images.remove(digest)
    return true
  }
}
