import type { Extent } from './layer-index.ts'

/** What is left of an extent; `from` is the first of `above` that may reach into it. */
export function subtract(extent: Extent, above: readonly Extent[], from: number): Extent[] {
  const left: Extent[] = []
  const end = endOf(extent)
  let start = extent.offsetBytes
  for (let at = from; start < end; at++) {
    const cover = above[at]
    if (cover === undefined || cover.offsetBytes >= end) break
    if (cover.offsetBytes > start) left.push(between(start, cover.offsetBytes))
    start = Math.max(start, endOf(cover))
  }
  if (start < end) left.push(between(start, end))
  return left
}

/** Both without overlap; the result is in order too, with what touches made one. */
export function unite(one: readonly Extent[], other: readonly Extent[]): Extent[] {
  const all = [...one, ...other].sort((a, b) => a.offsetBytes - b.offsetBytes)
  const united: Extent[] = []
  for (const extent of all) {
    const last = united.at(-1)
    if (last !== undefined && endOf(last) >= extent.offsetBytes) {
      last.lengthBytes = Math.max(endOf(last), endOf(extent)) - last.offsetBytes
    } else {
      united.push({ offsetBytes: extent.offsetBytes, lengthBytes: extent.lengthBytes })
    }
  }
  return united
}

/** What is in `extents` and not in `covers`; both in order and without overlap, so is the result. */
export function subtractAll(extents: readonly Extent[], covers: readonly Extent[]): Extent[] {
  let first = 0
  return extents.flatMap(extent => {
    while (first < covers.length && endOf(covers[first]) <= extent.offsetBytes) first++
    return subtract(extent, covers, first)
  })
}

/** Whether an extent overlaps one of `covers`, which are in order and without overlap. */
export function meets(extent: Extent, covers: readonly Extent[]): boolean {
  let low = 0
  let high = covers.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (endOf(covers[middle]) > extent.offsetBytes) high = middle
    else low = middle + 1
  }
  const cover = covers[low]
  return cover !== undefined && cover.offsetBytes < endOf(extent)
}

function between(start: number, end: number): Extent {
  return { offsetBytes: start, lengthBytes: end - start }
}

/** Where an extent ends; 0 where there is none. */
export function endOf(extent: Extent | undefined): number {
  return extent === undefined ? 0 : extent.offsetBytes + extent.lengthBytes
}
