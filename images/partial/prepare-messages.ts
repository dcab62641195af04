import type { Extent } from '../layer-index.ts'

/** What the preparing thread is to do. */
export interface PrepareTask {
  /** The folder of the image: config and layers are in it, for `prepare` no disk yet. */
  folder: string
  digest: string
  bounds: { diskBytes: number; layerChunks: number }
  /**
   * `prepare` makes the disk out of what is here; `check` only says what it has. An image that
   * shares layers is copied from, by reference where the file system can.
   */
  work: 'prepare' | 'check'
  base?: { folder: string; digest: string; sharedLayers: number }
}

/** What the thread asks and says. */
export type FromPreparer =
  /** Which files have these chunks? */
  | { type: 'find'; digests: string[] }
  /** May so many more bytes be written? */
  | { type: 'demand'; neededBytes: number }
  /** Make these holes; the largest there are. */
  | { type: 'punch'; extents: Extent[] }
  | ({ type: 'done' } & Prepared)
  | { type: 'failed'; code: string; values: Record<string, string | number>; message: string }

/** What it is told. */
export type ToPreparer =
  | { type: 'places'; places: (LocalPlace | undefined)[] }
  | { type: 'granted' }
  /** Whether all of them are holes now. */
  | { type: 'punched'; isDone: boolean }

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
