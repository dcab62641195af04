import { type LayerView, visibleExtents } from '../composition.ts'
import { blockBytes } from '../layer-index.ts'

/**
 * Which chunk each part of a disk comes from. Chunks are counted through all layers, the base's
 * first. Typed arrays and a binary search: an index of 100 GB has some hundred thousand runs, and
 * every read of a guest asks.
 */
export interface BlockMap {
  /** The chunks that are seen in a range of the disk, in its order; one may come twice. */
  chunksIn(offsetBytes: number, lengthBytes: number): Iterable<number>
}

/** Makes the map of what is seen of some layers. */
export function createBlockMap(views: readonly LayerView[]): BlockMap {
  const runs = collectRuns(views)
  const starts = Uint32Array.from(runs, run => run.startBlock)
  const ends = Uint32Array.from(runs, run => run.endBlock)
  const chunks = Uint32Array.from(runs, run => run.chunk)
  /** The first run that ends after a block. */
  const firstAfter = (block: number) => {
    let low = 0
    let high = ends.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((ends[middle] ?? 0) > block) high = middle
      else low = middle + 1
    }
    return low
  }
  return {
    *chunksIn(offsetBytes, lengthBytes) {
      const end = Math.ceil((offsetBytes + lengthBytes) / blockBytes)
      const first = firstAfter(Math.floor(offsetBytes / blockBytes))
      for (let at = first; at < starts.length && (starts[at] ?? 0) < end; at++) {
        yield chunks[at] ?? 0
      }
    },
  }
}

interface Run {
  startBlock: number
  endBlock: number
  chunk: number
}

function collectRuns(views: readonly LayerView[]): Run[] {
  const runs: Run[] = []
  let chunk = 0
  for (const view of views) {
    for (const number of view.index.chunks.keys()) {
      for (const { offsetBytes, lengthBytes } of visibleExtents(view, number)) {
        const startBlock = offsetBytes / blockBytes
        runs.push({ startBlock, endBlock: startBlock + lengthBytes / blockBytes, chunk })
      }
      chunk++
    }
  }
  // Each layer is in order by itself, which this sort makes use of.
  return runs.sort((one, other) => one.startBlock - other.startBlock)
}
