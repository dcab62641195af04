import type { ProvidedImage } from '../images/image-supply.ts'

/** An image that is being made usable, for a machine that is to start. */
export interface ImageFetch {
  digest: string
  /** Wall time at which the start was asked for that it belongs to. */
  requestedAtMs: number
  outcome: { provided?: ProvidedImage; error?: unknown } | undefined
  abort(): void
}

/** How far the image of a guest is that was started before it was here. */
export interface ArrivalView {
  /** Of its bytes, by fives: news is written to the store. Undefined while nothing is known. */
  percent: number | undefined
  /** Why nothing comes, and what can be done. */
  stalled: string | undefined
}

/** Looks after the image of a guest that was started before it was here whole. */
export interface ImageArrival {
  /**
   * Resolves when a QEMU can be started upon the export; `whole` when it needs none any more.
   * @throws why it can't
   */
  exported(): Promise<'exported' | 'whole'>
  view(): ArrivalView
  /** Ends the export too. */
  close(): Promise<void>
}
