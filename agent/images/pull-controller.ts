import { backoffMs } from '../../base/backoff.ts'
import type { Clock } from '../../base/clock.ts'
import { isFailure, MacfleetError, messageOf } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import { type Again, createWorkQueue, type WorkQueue } from '../../base/work-queue.ts'
import type { EventRecorder } from '../../cluster/event-recorder.ts'
import { hostLeaseKey } from '../../cluster/fleet/keys.ts'
import { withoutFilling } from '../../cluster/image-holders.ts'
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
  /** It did not arrive: those who want it are told why, and it is begun again after a while. */
  failed(digest: string, error: unknown): void
  stop(): Promise<void>
}

type Reference = { namespace: string; name: string }

/** How often progress is told to the others. */
const tellMs = 2_000
/** How soon another host takes over from one that looked a source up and is gone. */
const takeOverMs = 5_000
/** A source that said no for good is asked again after this: tags move, rights are given. */
const refusedMs = 60_000
/** What did not arrive is begun again after this. */
const brokenOff = { firstMs: 2_000, mostMs: 60_000 }
/** An image that was deleted on its way is given up as soon as no machine lies upon it. */
const heldRetryMs = 5_000
/** Stands in the queue for what is done at a start. */
const takingUp = 'start'

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
  /** Images whose source said no to this host, and when it is asked again (monotonic). */
  readonly #refused = new Map<string, number>()
  /** Digests that did not arrive, how often, and when they are begun again (monotonic). */
  readonly #broken = new Map<string, { failures: number; untilMs: number }>()
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
    this.#queue.add(takingUp)
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

  failed(digest: string, error: unknown): void {
    const { clock } = this.#components
    const failures = (this.#broken.get(digest)?.failures ?? 0) + 1
    const untilMs = clock.monotonicMs() + backoffMs(brokenOff, failures)
    this.#broken.set(digest, { failures, untilMs })
    for (const uid of this.#byDigest.get(digest) ?? []) {
      void this.#recordFailure(uid, error)
      this.#queue.add(uid)
    }
  }

  async #recordFailure(uid: string, error: unknown): Promise<void> {
    const { objects, events, log } = this.#components
    const reference = this.#known.get(uid)
    if (reference === undefined) return
    try {
      const image = await objects.find(imageKind, reference)
      const message = messageOf(error)
      if (image?.metadata.uid !== uid) return
      events.record(image, { type: 'Warning', reason: 'FetchFailed', message })
    } catch (second) {
      log.debug({ uid, error: messageOf(second) }, 'a failure was not told')
    }
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#following?.stop()
    await this.#queue.stop()
  }

  async #handle(uid: string): Promise<Again> {
    if (uid === takingUp) return await this.#dropNameless()
    const reference = this.#known.get(uid)
    if (reference === undefined) return undefined
    const image = await this.#components.objects.find(imageKind, reference)
    if (image?.metadata.uid !== uid || image.metadata.deletionTimestamp !== undefined) {
      return await this.#giveUp(uid)
    }
    if (image.status?.digest === undefined) return await this.#lookUp(image)
    return await this.#keep(image, image.status)
  }

  /** What was on its way for an image that is no more is of use to none but others of its name. */
  async #giveUp(uid: string): Promise<Again> {
    for (const [digest, named] of this.#byDigest) {
      if (!named.has(uid)) continue
      if (named.size === 1) {
        if (!(await this.#drop(digest))) return { againMs: heldRetryMs }
        this.#broken.delete(digest)
        this.#byDigest.delete(digest)
      }
      named.delete(uid)
    }
    this.#known.delete(uid)
    this.#refused.delete(uid)
    return undefined
  }

  /** Images that were deleted while this host was away. */
  async #dropNameless(): Promise<Again> {
    const { objects, images } = this.#components
    if (images.partials().length === 0) return undefined
    const { items } = await objects.list(imageKind)
    const named = new Set(items.map(({ status }) => status?.digest))
    const nameless = images.partials().filter(({ record: { digest } }) => !named.has(digest))
    const dropped = await Promise.all(nameless.map(({ record }) => this.#drop(record.digest)))
    return dropped.every(Boolean) ? undefined : { againMs: heldRetryMs }
  }

  /** @returns false when a machine lies upon it */
  async #drop(digest: string): Promise<boolean> {
    try {
      await this.#components.fillings.drop(digest)
      return true
    } catch (error) {
      if (isFailure(error, 'imageInUse')) return false
      throw error
    }
  }

  /** One host looks a source up for all. */
  async #lookUp(image: Image): Promise<Again> {
    const { objects, resolver, hostName, events } = this.#components
    if (image.spec.source === undefined) return undefined
    const told = image.status
    if (told?.importer !== undefined && told.importer !== hostName) {
      const againMs = told.phase === 'Failed' ? refusedMs : takeOverMs
      if (await this.#isAlive(told.importer)) return { againMs }
    }
    // Telling that it was refused is news too, and must not have it asked again.
    const waitMs = this.#refusedMs(image)
    if (waitMs > 0) return { againMs: waitMs }
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
      ...(forGood ? {} : { phase: 'Importing' as const }),
      importer: this.#components.hostName,
    }))
    if (!forGood) throw error
    this.#refused.set(image.metadata.uid ?? '', clock.monotonicMs() + refusedMs)
    return { againMs: refusedMs }
  }

  #refusedMs({ metadata: { uid = '' } }: Image): number {
    return (this.#refused.get(uid) ?? 0) - this.#components.clock.monotonicMs()
  }

  async #isAlive(host: string): Promise<boolean> {
    const { entry } = await this.#components.store.get(hostLeaseKey(host))
    return entry !== undefined
  }

  /** Brings it here when it is to be, and tells how far it is. */
  async #keep(image: Image, status: ImageStatus): Promise<Again> {
    const { images, fillings, hostName, clock } = this.#components
    const { digest = '', copyHosts = [] } = status
    const isHere = images.get(digest) !== undefined
    if (isHere) this.#broken.delete(digest)
    const waitMs = (this.#broken.get(digest)?.untilMs ?? 0) - clock.monotonicMs()
    const isWanted = !isHere && copyHosts.includes(hostName)
    if (isWanted && waitMs <= 0) await this.#bring(image)
    const filling = fillings.all().get(digest)
    if (filling === undefined) {
      if ((status.filling ?? []).some(({ host }) => host === hostName)) {
        await this.#tell(image, told => told && withoutFilling(told, hostName))
      }
      return isWanted && waitMs > 0 ? { againMs: waitMs } : undefined
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

  async #bring(image: Image): Promise<void> {
    const { fillings, events } = this.#components
    try {
      await fillings.bring(image, 'all', this.#signal)
    } catch (error) {
      this.#signal.throwIfAborted()
      const message = messageOf(error)
      events.record(image, { type: 'Warning', reason: 'FetchFailed', message })
      throw error
    }
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
