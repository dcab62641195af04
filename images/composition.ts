import { assert } from '../base/errors.ts'
import { endOf, subtract, unite } from './extents.ts'
import type { Extent, LayerIndex } from './layer-index.ts'

/** A run of a chunk's plain bytes that is seen on the disk. */
export interface VisibleExtent extends Extent {
  /** Where in the chunk's bytes it begins. */
  chunkOffsetBytes: number
}

/** What one layer of an image contributes to the disk that a guest sees. */
export interface LayerView {
  index: LayerIndex
  /**
   * By the chunk's number: what is seen of those that layers above cover, in part (some extents) or
   * wholly (none). A chunk that is not in it is seen whole.
   */
  covered: ReadonlyMap<number, readonly VisibleExtent[]>
}

/**
 * What is seen of each layer when they lie upon each other, base first. Where two layers say
 * something of the same block, the upper one is right; a zero extent hides what is below it.
 */
export function composeLayers(layers: readonly LayerIndex[]): LayerView[] {
  const views: LayerView[] = []
  let above: Extent[] = []
  for (const index of [...layers].reverse()) {
    views.unshift({ index, covered: above.length === 0 ? new Map() : findCovered(index, above) })
    if (views.length < layers.length) above = unite(above, extentsOf(index))
  }
  return views
}

/** What is seen of a chunk, in order; all its extents when nothing covers it. */
export function visibleExtents(view: LayerView, chunk: number): readonly VisibleExtent[] {
  const covered = view.covered.get(chunk)
  if (covered !== undefined) return covered
  const found = view.index.chunks[chunk]
  assert(found !== undefined, `the layer has a chunk ${chunk}`)
  let chunkOffsetBytes = 0
  return found.extents.map(extent => {
    const visible = { ...extent, chunkOffsetBytes }
    chunkOffsetBytes += extent.lengthBytes
    return visible
  })
}

function findCovered(index: LayerIndex, above: readonly Extent[]): Map<number, VisibleExtent[]> {
  const covered = new Map<number, VisibleExtent[]>()
  let first = 0
  for (const [number, { extents }] of index.chunks.entries()) {
    const visible: VisibleExtent[] = []
    let chunkOffsetBytes = 0
    let isWhole = true
    for (const extent of extents) {
      while (first < above.length && endOf(above[first]) <= extent.offsetBytes) first++
      const seen = subtract(extent, above, first)
      for (const part of seen) {
        const into = part.offsetBytes - extent.offsetBytes
        visible.push({ ...part, chunkOffsetBytes: chunkOffsetBytes + into })
      }
      if (seen.length !== 1 || seen[0]?.lengthBytes !== extent.lengthBytes) isWhole = false
      chunkOffsetBytes += extent.lengthBytes
    }
    if (!isWhole) covered.set(number, visible)
  }
  return covered
}

/** Everything that a layer says something of: data, and zeros. */
export function extentsOf({ chunks, zeros }: LayerIndex): Extent[] {
  return [...chunks.flatMap(({ extents }) => extents), ...zeros]
}
