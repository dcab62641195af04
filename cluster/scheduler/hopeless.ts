import type { Room } from './room.ts'
import type { Verdicts } from './verdicts.ts'

/** How many rooms are remembered for machines with the same needs. */
const roomsMost = 16

/**
 * For which machines there was no host in this round. Room only shrinks in a round, so whoever has
 * the same needs and takes as much or more need not look.
 */
export interface Hopeless {
  has(verdicts: Verdicts, room: Readonly<Room>): boolean
  add(verdicts: Verdicts, room: Readonly<Room>): void
}

/** There is hope for all. */
export function createHopeless(): Hopeless {
  const rooms = new Map<Verdicts, Readonly<Room>[]>()
  return {
    has: (verdicts, room) => rooms.get(verdicts)?.some(less => isWithin(less, room)) ?? false,
    add(verdicts, room) {
      const others = rooms.get(verdicts)?.filter(other => !isWithin(room, other)) ?? []
      if (others.length < roomsMost) rooms.set(verdicts, [...others, room])
    },
  }
}

function isWithin(less: Readonly<Room>, more: Readonly<Room>): boolean {
  return (
    less.nanocores <= more.nanocores &&
    less.memoryBytes <= more.memoryBytes &&
    less.machines <= more.machines &&
    less.macosGuests <= more.macosGuests
  )
}
