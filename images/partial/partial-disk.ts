import type { LayerView } from '../composition.ts'

/** One chunk of an image: the layer's place (base 0) and the chunk's number in it. */
export interface ChunkName {
  layer: number
  chunk: number
}

/**
 * The raw file of an image that is not here whole, and which of its chunks are. Used by one thread
 * at a time. What it says is present was verified and is durable: it outlives kill -9 and loss of
 * power.
 */
export interface PartialDisk {
  readonly virtualSizeBytes: number
  readonly layers: readonly LayerView[]
  /** Plain bytes of all chunks that are seen at least in part; wholly covered ones are not wanted. */
  readonly wantedBytes: number
  /** Plain bytes of those that are here, flushed or not. */
  presentBytes(): number
  /** Whether it is here and may be read, flushed or not. Covered chunks count as here. */
  has(name: ChunkName): boolean
  /** Chunks of a layer that are here and seen whole, so that others can have them: a bit for each. */
  servable(layer: number): Uint8Array
  /** Chunks that have to come before this range can be read. */
  missing(offsetBytes: number, lengthBytes: number): ChunkName[]
  /** All that is wanted and not here. */
  allMissing(): Iterable<ChunkName>
  /**
   * Compares with the chunk's digest and writes what is seen of it. Doing it twice is harmless.
   * @throws chunkInvalid when it is not what it should be (nothing was written); diskFull
   */
  put(name: ChunkName, bytes: Buffer): Promise<void>
  /**
   * Makes what was put durable: first the bytes, then the record of them.
   * @returns what is durable since the last call
   */
  flush(): Promise<ChunkName[]>
  /** Plain bytes of a chunk that is here and seen whole, hashed anew. @throws chunkInvalid */
  readChunk(name: ChunkName): Promise<Buffer>
  /** Bytes of the disk; the caller has made sure that nothing of it is missing. */
  read(offsetBytes: number, lengthBytes: number): Promise<Buffer>
  close(): Promise<void>
}
