import type { ImageConfig } from '../image-record.ts'
import type { Extent } from '../layer-index.ts'

/** What the preparing thread is to do. */
export interface PrepareTask {
  /** The folder of the image: config and layers are in it, for `prepare` no disk yet. */
  folder: string
  config: ImageConfig
  bounds: { diskBytes: number; layerChunks: number }
  /**
   * `prepare` makes the disk out of what is here; `check` only says what it has. An image that
   * shares layers is copied from, by reference where the file system can.
   */
  work: 'prepare' | 'check'
  base?: { folder: string; config: ImageConfig; sharedLayers: number }
}

/** What the thread asks. */
export type PrepareQuestion =
  /** Which files have these chunks? */
  | { about: 'places'; digests: string[] }
  /** May so many more bytes be written? */
  | { about: 'room'; neededBytes: number }
  /** Can these be made holes? The largest there are. */
  | { about: 'holes'; extents: Extent[] }

/** Places for `places`; whether it was done for the others. */
export type PrepareAnswer = { places: (LocalPlace | undefined)[] } | { isDone: boolean }

/** Where a file of this host has a chunk. */
export interface LocalPlace {
  path: string
  extents: Extent[]
}

/** What there is of a disk. */
export interface Prepared {
  /** Plain bytes that came from images here. */
  localBytes: number
  presentBytes: number
  wantedBytes: number
  /** By layer: chunks that can be handed on, a bit for each. */
  servable: Uint8Array[]
}
