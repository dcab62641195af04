import { extentsOf, type LayerView, visibleExtents } from '../composition.ts'
import { endOf, meets, subtractAll, unite } from '../extents.ts'
import type { Extent } from '../layer-index.ts'
import type { ChunkName } from './partial-disk.ts'

/** What a copy of another image's disk is good for. */
export interface BasePlan {
  /** Chunks of which the copy has all that is to be seen. */
  kept: ChunkName[]
  /** Where the copy has data and the disk has to be zero. */
  stale: Extent[]
  /** The same with what lies between two of them, where that is to be zero too. */
  holes: Extent[]
}

/**
 * What a disk that begins as a copy of another image's disk has already. The other may have layers
 * above those that both share: what they hide is not kept.
 * @param shared how many layers, base first, are the same in both
 */
export function planBase(
  image: readonly LayerView[],
  base: readonly LayerView[],
  shared: number,
): BasePlan {
  const hidden = base.slice(shared).map(({ index }) => extentsOf(index))
  const hides = hidden.reduce(unite, [])
  const kept: ChunkName[] = []
  for (const [layer, view] of image.slice(0, shared).entries()) {
    for (const chunk of view.index.chunks.keys()) {
      const seen = visibleExtents(view, chunk)
      if (seen.length > 0 && !seen.some(extent => meets(extent, hides))) kept.push({ layer, chunk })
    }
  }
  const seen = allVisible(image)
  const sizeBytes = image.at(-1)?.index.virtualSizeBytes ?? 0
  const past = { offsetBytes: sizeBytes, lengthBytes: Number.MAX_SAFE_INTEGER - sizeBytes }
  const right = [...seen, past]
  const stale = subtractAll(allVisible(base), right)
  return { kept, stale, holes: joinAcross(stale, right) }
}

/** Makes one of those between which nothing is to be seen. */
function joinAcross(stale: readonly Extent[], right: readonly Extent[]): Extent[] {
  const holes: Extent[] = []
  for (const extent of stale) {
    const last = holes.at(-1)
    const gapBytes = last === undefined ? 0 : extent.offsetBytes - endOf(last)
    const gap = { offsetBytes: endOf(last), lengthBytes: gapBytes }
    if (last !== undefined && (gapBytes === 0 || !meets(gap, right))) {
      last.lengthBytes = endOf(extent) - last.offsetBytes
    } else {
      holes.push({ ...extent })
    }
  }
  return holes
}

/** Where a disk has data. */
function allVisible(views: readonly LayerView[]): Extent[] {
  const extents = views.flatMap(view =>
    [...view.index.chunks.keys()].flatMap(chunk => visibleExtents(view, chunk)),
  )
  return unite(extents, [])
}
