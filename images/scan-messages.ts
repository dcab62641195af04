import type { Extent } from './layer-index.ts'

/** What the scanning thread is to do; files are descriptors of this process. */
export interface ScanTask {
  /** The raw file that the layer lies in. */
  diskFile: number
  /**
   * Where the bytes come from: a file, the raw file itself (hashed in place), or messages if
   * undefined.
   */
  sourceFile: number | undefined
  /** Bytes of the source; 0 if they come as messages. */
  sizeBytes: number
  /** The parts of the source that may hold data, in order. */
  ranges: Extent[]
}

/** What the thread is told, when its bytes come as messages. */
export type ToScanner =
  | {
      type: 'window'
      offsetBytes: number
      /** Bytes of `window` that count: whole blocks. */
      lengthBytes: number
      window: ArrayBuffer
    }
  | { type: 'end'; sizeBytes: number }

/** What the thread says. */
export type FromScanner =
  | { type: 'progress'; doneBytes: number }
  /** A window was worked on; its memory comes back. */
  | { type: 'taken'; window: ArrayBuffer }
  | { type: 'done'; index: ArrayBuffer; doneBytes: number }
  | { type: 'failed'; code: string; message: string }

/**
 * The code of a failure: the source ended before its size, because somebody changed it meanwhile.
 */
export const shortened = 'SHORTENED'
