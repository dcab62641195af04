import { chunkBytes } from '../layer-index.ts'

/**
 * Memory for chunks that is used again. Made anew for each, it would be the garbage collector that
 * sets the pace: half of the processor's time at full speed.
 */
export interface ChunkMemory {
  /** Room for the largest chunk; its bytes are whatever they were. */
  take(): Buffer
  give(memory: Buffer): void
}

/** @param most how much of it is kept while nobody uses it */
export function createChunkMemory(most: number): ChunkMemory {
  const free: Buffer[] = []
  return {
    take: () => free.pop() ?? Buffer.allocUnsafeSlow(chunkBytes),
    give(memory) {
      if (free.length < most) free.push(memory)
    },
  }
}
