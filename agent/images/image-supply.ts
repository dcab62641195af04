import type { ImageRecord } from '../../images/image-record.ts'
import type { Filling } from '../../images/transfer/transfers.ts'

/** Brings images to this host when machines need them. */
export interface ImageSupply {
  /**
   * Makes an image usable here: whole, or on its way with its kernel, initrd and NVRAM already
   * here. Sources are the hosts that hold it, then where it came from. Asking again is cheap.
   * @throws imageContentMissing when nobody has it; diskFull
   */
  provide(wanted: WantedImage, signal: AbortSignal): Promise<ProvidedImage>
  /**
   * The image as it is here now, whole or filling; undefined when nothing of it is here. For a
   * guest that runs already.
   */
  find(digest: string): ProvidedImage | undefined
}

/** Which image, and what for. */
export interface WantedImage {
  namespace: string
  name: string
  digest: string
}

/** An image that a machine can start from. */
export interface ProvidedImage {
  record: ImageRecord
  /** The raw disk; undefined while it is on its way. */
  disk?: string
  kernel?: string
  initrd?: string
  nvram?: string
  /** Undefined when it is whole, or when nothing fills it at present. A guest gets its disk by `filling.serve` meanwhile. */
  filling?: Filling
}
