import type { Clock } from '../../base/clock.ts'
import { MacfleetError, messageOf } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import { type Again, createWorkQueue, type WorkQueue } from '../../base/work-queue.ts'
import type { EventRecorder } from '../../cluster/event-recorder.ts'
import { hostLeaseKey } from '../../cluster/fleet/keys.ts'
import { type Following, followObjects } from '../../cluster/object-follow.ts'
import type { Objects } from '../../cluster/objects.ts'
import type { Store } from '../../cluster/store/store.ts'
import type { ImageStore } from '../../images/image-store.ts'
import { type Image, imageKind } from '../../resources/image.ts'
import type { Fillings } from './fillings.ts'
import { failedStatus, type ImageStatus } from './image-status.ts'
import type { SourceResolver } from './resolver.ts'

/** What pulling images needs. */
export interface PullControllerComponents {
  objects: Objects
  store: Store
  images: ImageStore
  fillings: Fillings
  resolver: SourceResolver
  events: EventRecorder
  hostName: string
  clock: Clock
  log: Log
}

/** Looks sources up, and brings the images here that this host is to hold. */
export interface PullController {
  /** Something of this image is new here. */
  look(digest: string): void
  stop(): Promise<void>
}

type Reference = { namespace: string; name: string }

/** How often progress is told to the others. */
const tellMs = 2_000
/** How soon another host takes over from one that looked a source up and is gone. */
const takeOverMs = 5_000
/** A source that said no for good is asked again after this: tags move, rights are given. */
const refusedMs = 5 * 60_000

/** Begins to work. */
export function startPullController(components: PullControllerComponents): PullController {
  const controller = new Controller(components)
  controller.start()
  return controller
}

class Controller implements PullController {
  readonly #components: PullControllerComponents
  readonly #queue: WorkQueue
  readonly #known = new Map<string, Reference>()
  readonly #byDigest = new Map<string, Set<string>>()
  readonly #stopping = new AbortController()
  #following: Following | undefined

  constructor(components: PullControllerComponents) {
    this.#components = components
    this.#queue = createWorkQueue(
      { handle: uid => this.#handle(uid), backoff: { firstMs: 1_000, mostMs: 60_000 } },
      components,
    )
  }

  start(): void {
    this.#following = followObjects(imageKind, this.#components, image => {
      const { uid, namespace, name } = image.metadata
      if (uid === undefined || namespace === undefined) return
      this.#known.set(uid, { namespace, name })
      const digest = image.status?.digest
      if (digest !== undefined) {
        const named = this.#byDigest.get(digest) ?? new Set()
        this.#byDigest.set(digest, named.add(uid))
      }
      this.#queue.add(uid)
    })
  }

  look(digest: string): void {
    for (const uid of this.#byDigest.get(digest) ?? []) this.#queue.add(uid)
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#following?.stop()
    await this.#queue.stop()
  }

  async #handle(uid: string): Promise<Again> {
    const reference = this.#known.get(uid)
    if (reference === undefined) return undefined
    const image = await this.#components.objects.find(imageKind, reference)
    if (image?.metadata.uid !== uid || image.metadata.deletionTimestamp !== undefined) {
      this.#forget(uid)
      return undefined
    }
    if (image.status?.digest === undefined) return await this.#lookUp(image)
    return await this.#keep(image, image.status)
  }

  #forget(uid: string): void {
    this.#known.delete(uid)
    for (const [digest, named] of this.#byDigest) {
      if (named.delete(uid) && named.size === 0) this.#byDigest.delete(digest)
    }
  }

  /** One host looks a source up for all. */
  async #lookUp(image: Image): Promise<Again> {
    const { objects, resolver, hostName, events } = this.#components
    if (image.spec.source === undefined) return undefined
    const told = image.status
    if (told?.importer !== undefined && told.importer !== hostName) {
      if (await this.#isAlive(told.importer)) return { againMs: takeOverMs }
    }
    const claimed = await objects.changeStatus(
      imageKind,
      image.metadata,
      status =>
        status?.importer === told?.importer && status?.digest === undefined
          ? { ...status, phase: 'Importing' as const, importer: hostName }
          : undefined,
      uidOf(image),
    )
    if (claimed?.status?.importer !== hostName) return { againMs: takeOverMs }
    try {
      const found = await resolver.resolve(image, this.#progressTeller(image), this.#signal)
      const resolved = await this.#tell(image, status =>
        status?.importer === hostName ? { ...found, ...copyHostsOf(status) } : status,
      )
      const message = `Found ${found.resolved ?? found.digest}`
      if (resolved?.status?.digest === found.digest) {
        events.record(image, { type: 'Normal', reason: 'Resolved', message })
      }
      return undefined
    } catch (error) {
      this.#signal.throwIfAborted()
      return await this.#notFound(image, error)
    }
  }

  get #signal(): AbortSignal {
    return this.#stopping.signal
  }

  /** A refusal is told as such; what may pass is tried again soon. */
  async #notFound(image: Image, error: unknown): Promise<Again> {
    const { clock, events } = this.#components
    const message = messageOf(error)
    const forGood = error instanceof MacfleetError && error.httpStatus < 500
    events.record(image, { type: 'Warning', reason: 'PullFailed', message })
    await this.#tell(image, status => ({
      ...failedStatus(status, message, clock, 'PullFailed'),
      ...(forGood ? {} : { phase: 'Importing' as const, importer: this.#components.hostName }),
    }))
    if (forGood) return { againMs: refusedMs }
    throw error
  }

  async #isAlive(host: string): Promise<boolean> {
    const { entry } = await this.#components.store.get(hostLeaseKey(host))
    return entry !== undefined
  }

  /** Brings it here when it is to be, and tells how far it is. */
  async #keep(image: Image, status: ImageStatus): Promise<Again> {
    const { images, fillings, hostName } = this.#components
    const { digest = '', copyHosts = [] } = status
    const isHere = images.get(digest) !== undefined
    if (!isHere && copyHosts.includes(hostName)) {
      await fillings.bring(image, 'all', this.#signal)
    }
    const filling = fillings.all().get(digest)
    if (filling === undefined) {
      if (isHere || !(status.filling ?? []).some(({ host }) => host === hostName)) return undefined
      await this.#tell(image, told => withoutFilling(told, hostName))
      return undefined
    }
    await fillings.refresh(image)
    const { doneBytes, totalBytes, stalled } = filling.progress()
    const own = { host: hostName, doneBytes, totalBytes, ...(stalled && { stalled }) }
    await this.#tell(image, told => {
      if (told?.digest !== digest) return told
      const others = (told.filling ?? []).filter(({ host }) => host !== hostName)
      const all = [...others, own].sort((one, other) => (one.host < other.host ? -1 : 1))
      return { ...told, filling: all }
    })
    return { againMs: tellMs }
  }

  #progressTeller(image: Image): (doneBytes: number, totalBytes: number | undefined) => void {
    const { clock } = this.#components
    let toldMs = Number.NEGATIVE_INFINITY
    return (doneBytes, totalBytes) => {
      if (clock.monotonicMs() - toldMs < tellMs) return
      toldMs = clock.monotonicMs()
      const progress = { stage: 'receiving', doneBytes, ...(totalBytes && { totalBytes }) }
      this.#tell(image, status =>
        status?.phase === 'Importing' ? { ...status, progress } : status,
      ).catch(() => {})
    }
  }

  #tell(
    image: Image,
    mutate: (status: ImageStatus | undefined) => ImageStatus | undefined,
  ): Promise<Image | undefined> {
    const { objects } = this.#components
    return objects.changeStatus(imageKind, image.metadata, mutate, uidOf(image))
  }
}

function uidOf({ metadata: { uid } }: Image): { uid?: string } {
  return uid === undefined ? {} : { uid }
}

function copyHostsOf({ copyHosts }: ImageStatus): Pick<ImageStatus, 'copyHosts'> {
  return copyHosts === undefined ? {} : { copyHosts }
}

function withoutFilling(status: ImageStatus | undefined, host: string): ImageStatus | undefined {
  if (status?.filling === undefined) return status
  const { filling, ...rest } = status
  const others = filling.filter(each => each.host !== host)
  return others.length === 0 ? rest : { ...rest, filling: others }
}
