import type { ErrorCode } from '../../base/errors.ts'
import type { Qcow2Layout } from './qcow2-disk.ts'

/** What the committing thread is to do; files are descriptors of this process. */
export interface CommitTask {
  snapshotFile: number
  snapshotBytes: number
  layout: Qcow2Layout
  parentFile: number
  /** The indexes of the parent's layers, encoded, base first. */
  parentLayers: Uint8Array[]
  /** See LayerIndexBounds. */
  bounds: { diskBytes: number; layerChunks: number }
}

/** What the thread is told once it has made the layer. */
export interface ToCommitter {
  type: 'read'
  chunk: number
}

/** What the thread says. */
export type FromCommitter =
  | { type: 'progress'; doneBytes: number }
  | { type: 'layer'; encoded: ArrayBuffer }
  | { type: 'chunk'; chunk: number; bytes: ArrayBuffer }
  | { type: 'failed'; error: ThreadError }

/** An error on its way out of the thread: one of our table, or the system's. */
export type ThreadError =
  | { known: ErrorCode; values: Readonly<Record<string, string | number>> }
  | { message: string; code: string }
