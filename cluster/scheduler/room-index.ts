import type { Room } from './room.ts'

const gibibyte = 2 ** 30
/** Hosts with this many cores and GiB free, or more, are told apart by looking at them. */
const levels = 64

/**
 * Hosts by how much room they have, so that the full ones of a fleet, which are most of it, are
 * never looked at. A level is a whole number of cores, or of GiB where there are fewer of them.
 */
export interface RoomIndex {
  /** A host has this room now; undefined for one that takes nothing. Costs the same in any fleet. */
  set(slot: number, room: Readonly<Room> | undefined): void
  /** Lists of slots, together all that could have the room and some that don't, in no order. */
  candidates(room: Readonly<Room>): readonly (readonly number[])[]
}

/** No hosts. */
export function createRoomIndex(): RoomIndex {
  const lists: number[][] = Array.from({ length: levels }, () => [])
  /** Where each slot is: in which list, and at which place of it. */
  const listOf: (number[] | undefined)[] = []
  const placeOf: number[] = []

  const remove = (slot: number): void => {
    const list = listOf[slot]
    const last = list?.pop()
    if (list === undefined || last === undefined || last === slot) return
    // The last takes the place that became free.
    const place = placeOf[slot] ?? 0
    list[place] = last
    placeOf[last] = place
  }

  return {
    set(slot, room) {
      const list = room === undefined || room.machines < 1 ? undefined : lists[levelOf(room)]
      if (list === listOf[slot]) return
      remove(slot)
      listOf[slot] = list
      if (list !== undefined) placeOf[slot] = list.push(slot) - 1
    },
    candidates: room => lists.slice(Math.max(0, levelOf(room))),
  }
}

/** Below 0 when less than nothing is free: of a host whose capacity shrank. */
function levelOf({ nanocores, memoryBytes }: Readonly<Room>): number {
  return Math.min(levels - 1, Math.floor(Math.min(nanocores / 1e9, memoryBytes / gibibyte)))
}
