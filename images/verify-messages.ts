import type { ImageConfig } from './image-record.ts'
import type { Extent } from './layer-index.ts'

/** Which disk is verified. */
export interface VerifyTask {
  /** The image's folder; its layers were compared with their digests. */
  folder: string
  config: ImageConfig
  bounds: { diskBytes: number; layerChunks: number }
  /** The parts of the disk that may hold data, in order; the rest are holes. */
  ranges: Extent[]
  /** Writes the right bytes where the disk has others. */
  isRepair: boolean
}

/** Asks for a chunk's plain bytes from elsewhere. */
export interface VerifyQuestion {
  layer: number
  chunk: number
  digest: string
}

/** The bytes, not yet compared with the digest; undefined when nobody has them. */
export type VerifyAnswer = Uint8Array | undefined

/** A place of the disk with other bytes than it should have. */
export interface BadRun {
  /** What should be there; for bytes where a hole should be, what is there. */
  digest: string
  offset: number
  isRepaired: boolean
}

/** What was found. */
export interface DiskVerification {
  checkedChunks: number
  /** Chunks that a layer above hides in part, of which nobody here has the rest to hash them with. */
  uncheckedChunks: number
  bad: BadRun[]
}
