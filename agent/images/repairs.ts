import type { Clock } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import { messageOf } from '../../base/log.ts'
import type { EventRecorder } from '../../cluster/event-recorder.ts'
import type { Objects } from '../../cluster/objects.ts'
import type { ImageStore } from '../../images/image-store.ts'
import type { Rot } from '../../images/peers/served-images.ts'
import type { Verification } from '../../images/verify-image.ts'
import { type Image, imageKind } from '../../resources/image.ts'
import type { ImageOrigins } from './origins.ts'
import { createRepairSource, type RepairSourceComponents } from './repair-source.ts'

/** What verifying and repairing needs. */
export interface RepairsComponents extends RepairSourceComponents {
  images: Pick<ImageStore, 'verify'>
  origins: ImageOrigins
  objects: Objects
  events: EventRecorder
  clock: Clock
  /** Something of it was put right: it can be given to others again. */
  onMended(digest: string): void
}

/** Puts right what is wrong with the images of this host. */
export interface ImageRepairs {
  /**
   * Reads an image anew; with `repair`, what is wrong comes again from where the image can be had.
   * @throws imageNotReady, notFound, the signal's reason
   */
  verify(image: Image, how: { repair: boolean; signal: AbortSignal }): Promise<Verification>
  /** Something was rotten when another host asked for it: the image is repaired, one at a time. */
  onRot(rot: Rot): void
  stop(): Promise<void>
}

/** What was tried is not tried again by itself for so long. */
const againMs = 10 * 60_000

/** Nothing is rotten yet. */
export function createImageRepairs(components: RepairsComponents): ImageRepairs {
  const { images, origins, objects, events, clock, log } = components
  const stopping = new AbortController()
  /** Digests, and until when they are left alone (monotonic). */
  const tried = new Map<string, number>()
  let work: Promise<void> = Promise.resolve()

  const tell = (image: Image, { bad }: Verification): void => {
    const left = bad.filter(({ isRepaired }) => !isRepaired).length
    const mended = bad.length - left
    if (left === 0) {
      const message = `${mended} damaged parts were put right`
      events.record(image, { type: 'Normal', reason: 'Repaired', message })
      return
    }
    const message = `${left} damaged parts could not be had anew, ${mended} were put right`
    events.record(image, { type: 'Warning', reason: 'RepairFailed', message })
  }
  const verify: ImageRepairs['verify'] = async (image, { repair, signal }) => {
    const digest = image.status?.digest
    if (digest === undefined) {
      const { name } = image.metadata
      throw failure('imageNotReady', { name, phase: image.status?.phase ?? 'Importing' })
    }
    if (!repair) return await images.verify(digest, { signal })
    const { sources } = await origins.of(image, signal)
    const source = createRepairSource(sources, components, signal)
    try {
      const found = await images.verify(digest, { signal, repair: source })
      if (found.bad.length > 0) tell(image, found)
      if (found.bad.some(({ isRepaired }) => isRepaired)) components.onMended(digest)
      return found
    } finally {
      await source.close()
    }
  }
  const repairRotten = async ({ image: digest, detail }: Rot): Promise<void> => {
    const { signal } = stopping
    if (signal.aborted) return
    const { items } = await objects.list(imageKind)
    const image = items.find(({ status }) => status?.digest === digest)
    if (image === undefined) return
    const message = `A part is damaged and is fetched again: ${detail}`
    events.record(image, { type: 'Warning', reason: 'Rotten', message })
    await verify(image, { repair: true, signal })
  }
  return {
    verify,
    onRot(rot) {
      const nowMs = clock.monotonicMs()
      for (const [digest, untilMs] of tried) if (untilMs <= nowMs) tried.delete(digest)
      if (tried.has(rot.image)) return
      tried.set(rot.image, Number.POSITIVE_INFINITY)
      work = work
        .then(() => repairRotten(rot))
        .catch(error => {
          if (stopping.signal.aborted) return
          log.warn({ image: rot.image, error: messageOf(error) }, 'an image was not repaired')
        })
        .finally(() => tried.set(rot.image, clock.monotonicMs() + againMs))
    },
    async stop() {
      stopping.abort(failure('unavailable', closing))
      await work
    },
  }
}

const closing = {
  what: 'repairing images',
  detail: 'the daemon ends',
  advice: 'Run `macfleet image verify NAME --repair` when it is back',
}
