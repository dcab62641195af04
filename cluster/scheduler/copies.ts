import type { HostView, Needs, Placed } from './types.ts'

/** How many copies there are in each place: a rack, or any other label's value. */
export interface Copies {
  /** The place of the host in each slot. */
  placeOf: Int32Array
  inPlace: Int32Array
}

/** @returns how many copies there are in the place of a host */
export function copiesNear({ placeOf, inPlace }: Copies, slot: number): number {
  return inPlace[placeOf[slot] ?? 0] ?? 0
}

/** Where the copies of machines are. */
export interface CopyCounts {
  /** @returns undefined when there are none anywhere */
  of(needs: Pick<Needs, 'group' | 'spread'>): Copies | undefined
  change(placed: Pick<Placed, 'group' | 'host'>, by: 1 | -1): void
  /** The hosts, or their labels, are others than before. */
  hostsChanged(): void
}

/** Which place each host is in, by one label. Hosts without the label are in one place together. */
interface Places {
  placeOf: Int32Array
  count: number
}

interface Group {
  /** Host names to copies. */
  hosts: Map<string, number>
  /** By label: copies in each place. Made when asked for, then kept in step. */
  counts: Map<string, Int32Array>
}

interface Init {
  size(): number
  at(slot: number): HostView | undefined
  slotOf(name: string): number | undefined
  /** Labels that are remembered at once; machines may name any. */
  labelsMost: number
}

/** No copies anywhere. */
export function createCopyCounts({ size, at, slotOf, labelsMost }: Init): CopyCounts {
  const groups = new Map<string, Group>()
  const places = new Map<string, Places>()

  const hostsChanged = (): void => {
    if (places.size === 0) return
    places.clear()
    for (const { counts } of groups.values()) counts.clear()
  }
  const placesBy = (label: string): Places => {
    const known = places.get(label)
    if (known !== undefined) return known
    if (places.size >= labelsMost) hostsChanged()
    const numbers = new Map<string | undefined, number>()
    const placeOf = Int32Array.from({ length: size() }, (_, slot) => {
      const value = at(slot)?.labels[label]
      const number = numbers.get(value) ?? numbers.size
      numbers.set(value, number)
      return number
    })
    const made = { placeOf, count: numbers.size }
    places.set(label, made)
    return made
  }
  const countsBy = (label: string, { placeOf, count }: Places, group: Group): Int32Array => {
    const known = group.counts.get(label)
    if (known !== undefined) return known
    const counts = new Int32Array(count)
    for (const [host, copies] of group.hosts) add(counts, placeOf, slotOf(host), copies)
    group.counts.set(label, counts)
    return counts
  }

  return {
    of({ group: name, spread = 'rack' }) {
      const group = groups.get(name)
      if (group === undefined) return undefined
      const where = placesBy(spread)
      return { placeOf: where.placeOf, inPlace: countsBy(spread, where, group) }
    },
    change({ group: name, host }, by) {
      const group = groups.get(name) ?? { hosts: new Map(), counts: new Map() }
      const copies = (group.hosts.get(host) ?? 0) + by
      if (copies === 0) group.hosts.delete(host)
      else group.hosts.set(host, copies)
      if (group.hosts.size === 0) groups.delete(name)
      else groups.set(name, group)
      for (const [label, counts] of group.counts) {
        const placeOf = places.get(label)?.placeOf
        if (placeOf !== undefined) add(counts, placeOf, slotOf(host), by)
      }
    },
    hostsChanged,
  }
}

function add(
  counts: Int32Array,
  placeOf: Int32Array,
  slot: number | undefined,
  copies: number,
): void {
  const place = slot === undefined ? undefined : placeOf[slot]
  if (place !== undefined) counts[place] = (counts[place] ?? 0) + copies
}
