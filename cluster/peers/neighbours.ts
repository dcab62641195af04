import { createHash } from 'node:crypto'
import type { PeerMember } from './allow-list.ts'

/** Up to so many others a host keeps a connection to each of them. */
const allUpTo = 8
/** With more of them, to so many that answer. */
const fewest = 6
/** How many of these are of the own rack, besides the next one in the ring. */
const ownRack = 2

/**
 * With whom a host keeps connections, the best first: the one that follows it in a ring of all
 * (so that the whole hangs together, whatever else is chosen), two of its own rack, then others.
 * The choice is the same after every restart, and mostly mutual: a pair's weight is the same from
 * both sides.
 */
export function orderNeighbours(
  self: string,
  members: readonly PeerMember[],
): readonly PeerMember[] {
  const others = members.filter(({ peerId }) => peerId !== self)
  const rack = members.find(({ peerId }) => peerId === self)?.rack
  const byWeight = sortBy(others, ({ peerId }) => weigh([self, peerId].sort().join()))
  const place = weigh(self)
  const ring = sortBy(others, ({ peerId }) => weigh(peerId))
  const next = ring.find(({ peerId }) => weigh(peerId) > place) ?? ring[0]
  if (next === undefined) return []
  const near = byWeight.filter(member => member !== next && member.rack === rack)
  const far = byWeight.filter(member => member !== next && member.rack !== rack)
  return [next, ...near.slice(0, ownRack), ...alternate(far, near.slice(ownRack))]
}

/**
 * Whom to be connected to now: as many of the first as are needed to have enough that answer. Those
 * that do not are in it too, so that they are tried again.
 * @param fails whether a host could not be reached lately
 */
export function chooseNeighbours(
  ordered: readonly PeerMember[],
  fails: (peerId: string) => boolean,
): PeerMember[] {
  const wanted = ordered.length <= allUpTo ? ordered.length : fewest
  const chosen: PeerMember[] = []
  let answering = 0
  for (const member of ordered) {
    if (answering >= wanted) break
    chosen.push(member)
    if (!fails(member.peerId)) answering++
  }
  return chosen
}

function weigh(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

function sortBy<T>(values: readonly T[], keyOf: (value: T) => string): T[] {
  const keyed = values.map(value => ({ value, key: keyOf(value) }))
  return keyed.sort((a, b) => (a.key < b.key ? -1 : 1)).map(({ value }) => value)
}

function alternate<T>(first: readonly T[], second: readonly T[]): T[] {
  const length = Math.max(first.length, second.length)
  return Array.from({ length }, (_, index) => [
    ...first.slice(index, index + 1),
    ...second.slice(index, index + 1),
  ]).flat()
}
