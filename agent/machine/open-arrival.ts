import { sleep } from '../../base/clock.ts'
import { failure, isFailure, messageOf } from '../../base/errors.ts'
import type { Filling, Serving } from '../../images/transfer/transfers.ts'
import { linkImage } from '../../kvm/image-file.ts'
import { apiVersionOf } from '../../resources/kind.ts'
import { virtualMachineKind } from '../../resources/virtual-machine.ts'
import type { WantedImage } from '../images/image-supply.ts'
import type { ArrivalView, ImageArrival } from './arrival.ts'
import type { MachineContext } from './machine-context.ts'
import { saveRecord, type Tracked } from './tracked.ts'

/** What an arrival needs. */
export type ArrivalContext = Pick<
  MachineContext,
  'clock' | 'log' | 'events' | 'images' | 'supply' | 'host'
>

/** Which guest, and who wants to know. */
export interface ArrivalInit {
  tracked: Tracked
  image: WantedImage
  /** It got further, stands still, or is here: then the guest has the file. */
  onChange(): void
}

const lookMs = 1000
/** After something failed. */
const retryMs = 5000

/**
 * Exports an image to its guest while it is on its way, and gives the guest the file when all of it
 * is here. Depends on nothing but this host: a guest goes on whether or not the store is reached.
 */
export function openArrival(init: ArrivalInit, context: ArrivalContext): ImageArrival {
  return new Arrival(init, context)
}

/** Takes up a guest that a daemon before this one had started, unless it has the file. */
export function resumeArrival(init: Omit<ArrivalInit, 'image'>, context: ArrivalContext): void {
  const { tracked } = init
  const { lazyImage, imageDigest: digest } = tracked.record ?? {}
  if (lazyImage === undefined || digest === undefined || tracked.arrival !== undefined) return
  const image = { namespace: tracked.namespace, name: lazyImage.name, digest }
  tracked.arrival = openArrival({ ...init, image }, context)
}

/** Ends what is open of a guest's image on its way. */
export async function closeArrival(tracked: Pick<Tracked, 'arrival'>): Promise<void> {
  const { arrival } = tracked
  tracked.arrival = undefined
  await arrival?.close()
}

class Arrival implements ImageArrival {
  readonly #init: ArrivalInit
  readonly #context: ArrivalContext
  readonly #closing = new AbortController()
  readonly #exported = Promise.withResolvers<'exported' | 'whole'>()
  readonly #finished: Promise<void>
  #filling: Filling | undefined
  #serving: Serving | undefined
  #problem: string | undefined
  /** A filling was given up: said, then another is begun. */
  #ended: { error: unknown } | undefined
  #told: ArrivalView = { percent: undefined, stalled: undefined }

  constructor(init: ArrivalInit, context: ArrivalContext) {
    this.#init = init
    this.#context = context
    this.#exported.promise.catch(() => {})
    this.#finished = this.#run()
  }

  exported(): Promise<'exported' | 'whole'> {
    return this.#exported.promise
  }

  view(): ArrivalView {
    return this.#told
  }

  async close(): Promise<void> {
    this.#closing.abort(failure('unavailable', closed))
    await this.#finished
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    const { signal } = this.#closing
    const { clock } = this.#context
    while (!signal.aborted) {
      let waitMs = lookMs
      try {
        if (await this.#look(signal)) break
        this.#problem = undefined
      } catch (error) {
        if (signal.aborted) break
        this.#noteProblem(error)
        waitMs = retryMs
      }
      this.#tell()
      await sleep(clock, waitMs, signal).catch(() => {})
    }
    this.#exported.reject(failure('unavailable', closed))
    await this.#endServing()
  }

  /** @returns whether the guest has the file */
  async #look(signal: AbortSignal): Promise<boolean> {
    const { image } = this.#init
    const { images, supply } = this.#context
    if (images.get(image.digest) !== undefined) {
      // An export that a QEMU is just starting upon lives until that can be given the file.
      this.#exported.resolve('whole')
      return await this.#giveFile()
    }
    const ended = this.#ended
    this.#ended = undefined
    if (ended !== undefined) throw ended.error
    const provided = supply.find(image.digest)
    const filling = provided?.filling ?? (await supply.provide(image, signal)).filling
    signal.throwIfAborted()
    if (filling !== undefined && filling !== this.#filling) await this.#serve(filling)
    return false
  }

  async #serve(filling: Filling): Promise<void> {
    await this.#endServing()
    const { record, folder } = this.#init.tracked
    const user = record?.user
    const owner = user && { uid: user.userId, gid: user.groupId }
    this.#serving = await filling.serve(folder.image, owner)
    this.#filling = filling
    filling.done.catch(error => {
      this.#ended = { error }
    })
    this.#exported.resolve('exported')
  }

  async #endServing(): Promise<void> {
    const serving = this.#serving
    this.#serving = undefined
    this.#filling = undefined
    await serving?.close().catch(error => {
      this.#context.log.warn({ error: messageOf(error) }, 'an export did not end')
    })
  }

  /** @returns false while QEMU does not answer, or is at work on the disk */
  async #giveFile(): Promise<boolean> {
    const { tracked, image } = this.#init
    const { images, events, host } = this.#context
    const guest = tracked.runtime?.guest
    if (!guest?.status().connected || tracked.record === undefined) return false
    await linkImage(images.diskPath(image.digest), tracked.folder.base, tracked.record.user)
    try {
      await guest.perform({ kind: 'useImageFile' })
    } catch (error) {
      if (isFailure(error, 'guestBusy')) return false
      throw error
    }
    const { lazyImage: _, ...record } = tracked.record
    tracked.record = record
    await saveRecord(tracked)
    tracked.arrival = undefined
    const message = `The image is on ${host.name} now, whole: the disk is read from there`
    events.record(objectOf(tracked), { type: 'Normal', reason: 'ImageLocal', message })
    this.#init.onChange()
    return true
  }

  #noteProblem(error: unknown): void {
    const { tracked, image } = this.#init
    const problem = messageOf(error)
    if (problem !== this.#problem) {
      const fields = { uid: tracked.uid, image: image.digest, error: problem }
      this.#context.log.warn(fields, 'the image of a guest can not be had')
    }
    this.#problem = problem
    // Whoever starts the guest is told; a guest that runs waits.
    this.#exported.reject(error)
  }

  #tell(): void {
    const { tracked } = this.#init
    const progress = this.#filling?.progress()
    const stalled = this.#problem ?? progress?.stalled
    const share = progress && progress.doneBytes / Math.max(1, progress.totalBytes)
    const percent = share === undefined ? this.#told.percent : Math.floor(share * 20) * 5
    const told = this.#told
    if (told.percent === percent && told.stalled === stalled) return
    this.#told = { percent, stalled }
    if (stalled !== undefined && told.stalled === undefined) {
      const message = `Nothing comes of the image: ${stalled}`
      const said = { type: 'Warning', reason: 'ImageStalled', message } as const
      this.#context.events.record(objectOf(tracked), said)
    }
    this.#init.onChange()
  }
}

const closed = {
  what: 'the image of a guest',
  detail: 'the guest has ended, or the daemon ends',
  advice: '',
}

function objectOf({ namespace, name, uid }: Tracked) {
  const { kind } = virtualMachineKind
  return { kind, apiVersion: apiVersionOf(virtualMachineKind), metadata: { namespace, name, uid } }
}
