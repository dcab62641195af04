import type { IndexedState } from './fleet-state.ts'
import { addRoom, noRoom, type Room, roomFor } from './room.ts'
import {
  comesFirst,
  createSearch,
  fixedPart,
  type KeptRoom,
  refusalOf,
  type Search,
} from './search.ts'
import type { Wanted } from './types.ts'

/**
 * Room that machines keep while they wait, so that small ones which come later don't take it from
 * a big one for ever. A machine keeps room on the hosts that lack least for it: what ends there
 * brings it nearer to its start, and nothing that it keeps room from moves in. It keeps one host at
 * first, and twice as many for each period that it goes on waiting, since guests may run for ever.
 * So what it takes from others grows slowly, and yet it starts in the end wherever guests end.
 */
export interface Keeps extends KeptRoom {
  /** To be called for each machine in the order of the queue, before it is looked at. */
  turnOf(wanted: Wanted): void
  /** A machine has no place: from now on it keeps room from those that come after it. */
  add(wanted: Wanted): void
  /** Keeps what a machine takes in one slot: its host is found, but not yet decided. */
  hold(slot: number, wanted: Wanted): void
  in(slot: number): Kept | undefined
}

/** Room that is kept on one host. */
export interface Kept {
  room: Room
  /** For this machine first; perhaps for others too. */
  for: Wanted
}

/** Nobody keeps anything. */
export function createKeeps(state: IndexedState, nowMs: number): Keeps {
  const { bounds, policy } = state
  const kept = new Map<number, Kept>()
  let keepers = 0
  /** Those that keep room from lower priorities only, until there comes one. */
  let ofThisPriority: Wanted[] = []

  const hold = (slot: number, wanted: Wanted): void => {
    const here = kept.get(slot) ?? { room: noRoom(), for: wanted }
    addRoom(here.room, roomFor(wanted))
    kept.set(slot, here)
  }
  const keep = (wanted: Wanted): void => {
    const periods = Math.floor((nowMs - wanted.sinceMs) / policy.widenMs)
    const hosts = Math.min(2 ** Math.max(0, periods), bounds.keptHosts)
    const search = createSearch(state, wanted, nowMs)
    for (const slot of nearest(search, hosts, kept)) hold(slot, wanted)
  }

  return {
    add(wanted) {
      if (keepers >= bounds.keepers) return
      keepers++
      if (nowMs - wanted.sinceMs >= policy.patienceMs) keep(wanted)
      else ofThisPriority.push(wanted)
    },
    turnOf({ priority }) {
      if (ofThisPriority.every(wanted => wanted.priority === priority)) return
      for (const wanted of ofThisPriority) keep(wanted)
      ofThisPriority = []
    },
    hold,
    get any() {
      return kept.size > 0
    },
    in: slot => kept.get(slot),
  }
}

/** The slots of the hosts that lack least for a machine; only those that it would fit on when empty. */
function nearest(search: Search, most: number, kept: ReadonlyMap<number, Kept>): number[] {
  const found: { slot: number; lack: number }[] = []
  const isNearer = (one: { slot: number; lack: number }, other: typeof one): boolean =>
    one.lack < other.lack || (one.lack === other.lack && comesFirst(search, one.slot, other.slot))
  for (let slot = 0; slot < search.state.table.size; slot++) {
    if (fixedPart(search, slot) === -Infinity || refusalOf(search, slot) !== undefined) continue
    const lack = lackIn(search, slot, kept.get(slot)?.room)
    if (lack === undefined) continue
    const next = { slot, lack }
    let at = found.length
    for (; at > 0; at--) {
      const before = found[at - 1]
      if (before === undefined || !isNearer(next, before)) break
    }
    if (at === most) continue
    found.splice(at, 0, next)
    if (found.length > most) found.pop()
  }
  return found.map(({ slot }) => slot)
}

/**
 * The share of the host that would have to become free, of what it lacks most.
 * @returns undefined when all of it would not be enough
 */
function lackIn(
  { room, state: { table } }: Search,
  slot: number,
  kept: Readonly<Room> = nothing,
): number | undefined {
  let most = 0
  for (const amount of amounts) {
    const wants = room[amount]
    const all = table.all[amount][slot] ?? 0
    if (wants === 0) continue
    if (wants > all) return undefined
    const lack = wants + kept[amount] - (table.free[amount][slot] ?? 0)
    most = Math.max(most, lack / all)
  }
  return most
}

const nothing: Readonly<Room> = noRoom()
const amounts = Object.keys(nothing) as (keyof Room)[]
