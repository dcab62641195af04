import type { Extent } from '../layer-index.ts'

/** A chunk that is to be packed, and where its plain bytes lie, one run after another. */
export interface PackedChunk {
  digest: string
  /** A raw disk that has all of the chunk. */
  file: string
  extents: readonly Extent[]
}

/** What the packing thread is to do. */
export interface PackTask {
  /** Where the pack is written; what lies there is overwritten. */
  path: string
  /** In the order of the pack; what does not go in is left for the next. */
  chunks: PackedChunk[]
  limitBytes: number
}

/** What the packing thread says. */
export type FromPacker =
  | { type: 'packed'; digest: string; sizeBytes: number; lengths: number[] }
  | { type: 'failed'; code: string; message: string }
