import type { ChunkLocation, LayerLocations } from '../format/locations.ts'

/** One chunk in a pack. */
export interface PlacedChunk {
  number: number
  location: ChunkLocation
}

/** Neighbours in one pack, which are asked for at once. */
export interface PackRange {
  pack: string
  offsetBytes: number
  lengthBytes: number
  /** In order of the pack. Two chunks may share bytes. */
  chunks: PlacedChunk[]
}

/** What a range may have. */
export interface RangeBounds {
  /** Bytes of one range; a chunk is always smaller. */
  rangeBytes: number
  /** Bytes between two chunks that are read over rather than making another range. */
  gapBytes: number
}

/**
 * Cuts a wish for chunks into ranges. The order of the wish is kept as far as it goes: the range of
 * the chunk that was named first comes first.
 */
export function planRanges(
  chunks: readonly number[],
  locations: LayerLocations,
  bounds: RangeBounds,
): PackRange[] {
  const rank = new Map(chunks.map((number, at) => [number, at]))
  const placed = [...rank.keys()].map(number => ({ number, location: locations.at(number) }))
  placed.sort((one, other) => {
    const [a, b] = [one.location, other.location]
    if (a.pack.digest !== b.pack.digest) return a.pack.digest < b.pack.digest ? -1 : 1
    return a.offsetBytes - b.offsetBytes
  })
  const ranges: PackRange[] = []
  for (const chunk of placed) {
    const { pack, offsetBytes, lengthBytes } = chunk.location
    const last = ranges.at(-1)
    const endBytes = last === undefined ? 0 : last.offsetBytes + last.lengthBytes
    const grownBytes = Math.max(endBytes, offsetBytes + lengthBytes) - (last?.offsetBytes ?? 0)
    const isNear =
      last?.pack === pack.digest &&
      offsetBytes - endBytes <= bounds.gapBytes &&
      grownBytes <= bounds.rangeBytes
    if (last !== undefined && isNear) {
      last.lengthBytes = grownBytes
      last.chunks.push(chunk)
    } else {
      ranges.push({ pack: pack.digest, offsetBytes, lengthBytes, chunks: [chunk] })
    }
  }
  const first = (range: PackRange): number =>
    range.chunks.reduce(
      (least, { number }) => Math.min(least, rank.get(number) ?? 0),
      chunks.length,
    )
  return ranges.sort((one, other) => first(one) - first(other))
}
