import { createWriteStream, existsSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { type Clock, timestamp } from '../base/clock.ts'
import { failure, isFailure, messageOf } from '../base/errors.ts'
import type { Limits } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import { type Again, createWorkQueue, type WorkQueue } from '../base/work-queue.ts'
import type { EventRecorder } from '../cluster/event-recorder.ts'
import { type Following, followObjects } from '../cluster/object-follow.ts'
import type { Guard, Objects } from '../cluster/objects.ts'
import type { ImageStore } from '../images/image-store.ts'
import type { ImportProgress } from '../images/import-disk.ts'
import type { ImagePart, UploadRequest } from '../interface/api/subresources.ts'
import { withCondition } from '../resources/condition.ts'
import { type Image, imageKind } from '../resources/image.ts'

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
  /** Tells anew who uses what. */
  refresh(): void
  stop(): Promise<void>
}

type ImageStatus = NonNullable<Image['status']>

/** How often the progress of an import is written to the store. */
const progressMs = 500

/** Refuses to delete an image that disks lie upon. */
export function imageGuard(images: ImageStore): Guard<Image> {
  return {
    kind: imageKind,
    async remove(image) {
      const digest = image.status?.digest
      if (image.spec.pinned) throw failure('imagePinned', { digest: image.metadata.name })
      const users = digest === undefined ? [] : images.users(digest)
      if (users.length === 0) return []
      const names = users.map(user => user.name).join(', ')
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
    const { uploads, objects } = this.#components
    await rm(uploads, { recursive: true, force: true })
    await mkdir(uploads, { recursive: true, mode: 0o700 })
    for (const image of (await objects.list(imageKind)).items) {
      if (image.status?.phase === 'Importing') await this.#interrupted(image)
    }
    this.#following = followObjects(imageKind, this.#components, image => this.#seen(image))
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
    const { uid = '', name } = image.metadata
    if (image.status?.phase === 'Ready') {
      throw failure('alreadyExists', { resource: 'the content of image', name })
    }
    if (this.#receiving.has(uid)) {
      throw failure('conflict', { resource: 'the content of image', name })
    }
    this.#receiving.add(uid)
    try {
      if (part === 'content') return await this.#receiveContent(image, bytes, request)
      await this.#spool(this.#uploadOf(uid, part), bytes, request.signal)
      return image
    } finally {
      this.#receiving.delete(uid)
    }
  }

  #uploadOf(uid: string, part: ImagePart): string {
    return join(this.#components.uploads, `${uid}.${part}`)
  }

  async #spool(path: string, bytes: Readable, signal: AbortSignal): Promise<void> {
    const limitBytes = this.#components.limits.bootFileBytes
    let seenBytes = 0
    const bound = new Transform({
      transform(chunk: Buffer, _, done) {
        seenBytes += chunk.length
        if (seenBytes > limitBytes) done(failure('tooLarge', { limitBytes }))
        else done(null, chunk)
      },
    })
    try {
      await pipeline(bytes, bound, createWriteStream(path, { mode: 0o600 }), { signal })
    } catch (error) {
      await rm(path, { force: true })
      throw error
    }
  }

  async #receiveContent(image: Image, bytes: Readable, request: UploadRequest): Promise<Image> {
    const { events, images } = this.#components
    const { uid = '' } = image.metadata
    const [kernel, initrd] = [this.#uploadOf(uid, 'kernel'), this.#uploadOf(uid, 'initrd')]
    const source = {
      stream: bytes,
      ...(request.sizeBytes !== undefined && { sizeBytes: request.sizeBytes }),
    }
    try {
      const told = await this.#tell(image, () => ({ phase: 'Importing' }))
      const record = await images.importImage(source, {
        format: request.format,
        arch: image.spec.arch,
        firmware: image.spec.firmware,
        machine: image.spec.machine,
        boot: this.#bootOf(image, kernel, initrd),
        onProgress: this.#progressTeller(image),
        signal: request.signal,
      })
      const message = `Imported ${record.format}, ${record.chunkCount} chunks`
      events.record(image, { type: 'Normal', reason: 'Imported', message })
      return (await this.#tell(image, () => this.#readyStatus(record.digest))) ?? told ?? image
    } catch (error) {
      await this.#failed(image, error)
      throw error
    } finally {
      await Promise.all([rm(kernel, { force: true }), rm(initrd, { force: true })])
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
  #progressTeller(image: Image): (progress: ImportProgress) => void {
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
    const condition = { type: 'Ready', status: 'False', reason: 'ImportFailed', message } as const
    await this.#tell(image, status => ({
      phase: 'Failed',
      conditions: withCondition(status?.conditions ?? [], condition, timestamp(clock)),
    }))
  }

  #interrupted(image: Image): Promise<void> {
    return this.#failed(image, new Error('The daemon ended during the import. Import it again'))
  }

  #readyStatus(digest: string): ImageStatus | undefined {
    const { images, hostName, clock } = this.#components
    const record = images.get(digest)
    if (record === undefined) return undefined
    const message = 'The image can be used'
    const condition = { type: 'Ready', status: 'True', reason: 'Imported', message } as const
    return {
      phase: 'Ready',
      digest,
      virtualSizeBytes: record.virtualSizeBytes,
      sizeBytes: record.allocatedBytes,
      chunks: record.chunkCount,
      format: record.format,
      hasKernel: record.boot !== undefined,
      hosts: [hostName],
      users: images.users(digest).map(user => user.name),
      importedAt: record.importedAt,
      lastUsedAt: record.lastUsedAt,
      conditions: withCondition([], condition, timestamp(clock)),
    }
  }

  #seen(image: Image): void {
    const { uid, namespace, name } = image.metadata
    if (uid === undefined || namespace === undefined) return
    this.#known.set(uid, { namespace, name })
    this.#queue.add(uid)
  }

  async #handle(uid: string): Promise<Again> {
    const reference = this.#known.get(uid)
    if (reference === undefined) return undefined
    const image = await this.#components.objects.find(imageKind, reference)
    if (image === undefined || image.metadata.uid !== uid) {
      this.#known.delete(uid)
      return undefined
    }
    if (image.metadata.deletionTimestamp !== undefined) return await this.#destroy(image)
    const digest = image.status?.digest
    if (image.status?.phase !== 'Ready' || digest === undefined) return undefined
    await this.#keepPin(digest, image.spec.pinned)
    await this.#tell(image, status => {
      const now = this.#readyStatus(digest)
      return now && { ...now, conditions: status?.conditions }
    })
    return undefined
  }

  async #keepPin(digest: string, wanted: boolean): Promise<void> {
    const { images } = this.#components
    const record = images.get(digest)
    if (record === undefined || record.pinned === wanted) return
    await (wanted ? images.pin(digest) : images.unpin(digest))
  }

  /** Frees the content when no other Image names it, then lets the object go. */
  async #destroy(image: Image): Promise<Again> {
    const { objects, images } = this.#components
    const { uid = '' } = image.metadata
    const digest = image.status?.digest
    if (this.#receiving.has(uid)) return { againMs: 500 }
    const { items } = await objects.list(imageKind)
    const shared = items.some(
      other => other.metadata.uid !== uid && other.status?.digest === digest,
    )
    if (digest !== undefined && !shared && images.get(digest) !== undefined) {
      try {
        await images.remove(digest)
      } catch (error) {
        // A machine was faster: its disk needs the content, so the deletion waits for it.
        if (isFailure(error, 'imageInUse')) return { againMs: 5000 }
        throw error
      }
    }
    const finalizer = imageKind.finalizer ?? ''
    await objects.releaseFinalizer(imageKind, image.metadata, finalizer, uid)
    this.#known.delete(uid)
    return undefined
  }
}
