import { type Copies, copiesNear } from './copies.ts'
import type { IndexedState } from './fleet-state.ts'
import { hashOf, mixed } from './hash.ts'
import type { Columns } from './host-table.ts'
import { type Room, roomFor } from './room.ts'
import { roomPart, spreadPart } from './score.ts'
import type { Refusal, ScoreParts, Wanted } from './types.ts'
import { type Verdicts, verdictOn } from './verdicts.ts'

/** What one machine asks of hosts, which go by their slots. */
export interface Search {
  state: IndexedState
  wanted: Wanted
  room: Readonly<Room>
  /** The same for all machines with the same needs. */
  verdicts: Verdicts
  /** Where there are copies of it, if anywhere. */
  copies: Copies | undefined
  /** The slot of the host that has its disk, -1 when that host is not known. */
  anchor: number | undefined
  /** Those that count still. */
  refusals: readonly Refusal[]
  hash: number
}

/** Room that is kept, as far as it matters to a search. */
export interface KeptRoom {
  readonly any: boolean
  in(slot: number): { readonly room: Readonly<Room> } | undefined
}

/** @param nowMs wall clock: refusals from before don't count */
export function createSearch(state: IndexedState, wanted: Wanted, nowMs: number): Search {
  return {
    state,
    wanted,
    room: roomFor(wanted),
    verdicts: state.verdicts(wanted),
    copies: state.copies(wanted),
    anchor: wanted.anchor === undefined ? undefined : (state.table.slotOf(wanted.anchor) ?? -1),
    refusals: wanted.refusals?.filter(({ untilMs }) => untilMs > nowMs) ?? [],
    hash: mixed(hashOf(wanted.uid) ^ state.policy.seed),
  }
}

/** The best host of all: every one that could have the room is looked at. */
export function findBest(
  search: Search,
  kept: KeptRoom,
): { slot: number; score: number } | undefined {
  const { room, state, anchor } = search
  const { free } = state.table
  const lists = anchor === undefined ? state.table.candidates(room) : [[anchor]]
  let best = -1
  let bestScore = -Infinity
  for (const slots of lists) {
    for (const slot of slots) {
      if (!fits(free, slot, room)) continue
      const fixed = fixedPart(search, slot)
      if (fixed === -Infinity) continue
      const score = fixed + freePart(search, free, slot) + copiesPart(search, slot)
      if (score < bestScore) continue
      if (score === bestScore && best >= 0 && !comesFirst(search, slot, best)) continue
      if (refusalOf(search, slot) !== undefined) continue
      if (kept.any && !fitsBeside(free, slot, room, kept.in(slot)?.room)) continue
      best = slot
      bestScore = score
    }
  }
  return best < 0 ? undefined : { slot: best, score: bestScore }
}

function fits(free: Readonly<Columns>, slot: number, room: Readonly<Room>): boolean {
  return (
    (free.nanocores[slot] ?? -1) >= room.nanocores &&
    (free.memoryBytes[slot] ?? -1) >= room.memoryBytes &&
    (free.machines[slot] ?? -1) >= room.machines &&
    (room.macosGuests === 0 || (free.macosGuests[slot] ?? -1) >= room.macosGuests)
  )
}

/** Whether there is room for a machine beside what is kept for others. */
export function fitsBeside(
  free: Readonly<Columns>,
  slot: number,
  room: Readonly<Room>,
  kept: Readonly<Room> | undefined,
): boolean {
  if (kept === undefined) return fits(free, slot, room)
  // Who takes no macOS guest does not mind that one is kept.
  const macosGuests = room.macosGuests === 0 ? 0 : room.macosGuests + kept.macosGuests
  return fits(free, slot, {
    nanocores: room.nanocores + kept.nanocores,
    memoryBytes: room.memoryBytes + kept.memoryBytes,
    machines: room.machines + kept.machines,
    macosGuests,
  })
}

/** What neither room nor copies change; -Infinity for no. */
export function fixedPart({ state, anchor, verdicts }: Search, slot: number): number {
  if (anchor === undefined) return verdictOn(verdicts, slot)
  return slot === anchor && state.table.at(slot)?.ready ? 0 : -Infinity
}

/** A host's refusal that counts still. */
export function refusalOf({ refusals, state }: Search, slot: number): Refusal | undefined {
  if (refusals.length === 0) return undefined
  const name = state.table.at(slot)?.name
  return refusals.find(({ host }) => host === name)
}

/** The parts of a score that change as machines come and go. */
export function changingParts(search: Search, slot: number): Pick<ScoreParts, 'room' | 'spread'> {
  const room = freePart(search, search.state.table.free, slot)
  return { room, spread: copiesPart(search, slot) }
}

function freePart({ room, state }: Search, free: Readonly<Columns>, slot: number): number {
  const cores = ((free.nanocores[slot] ?? 0) - room.nanocores) * (free.perNanocore[slot] ?? 0)
  const memory = ((free.memoryBytes[slot] ?? 0) - room.memoryBytes) * (free.perByte[slot] ?? 0)
  return roomPart(state.policy.room, (cores + memory) / 2)
}

function copiesPart({ copies, wanted }: Search, slot: number): number {
  return spreadPart(wanted.spread, copies === undefined ? 0 : copiesNear(copies, slot))
}

/** Whether the first of two equally good hosts is taken. It does not depend on their slots. */
export function comesFirst({ state, hash }: Search, one: number, other: number): boolean {
  const { free, at } = state.table
  const rank = mixed((free.hash[one] ?? 0) ^ hash)
  const otherRank = mixed((free.hash[other] ?? 0) ^ hash)
  if (rank !== otherRank) return rank < otherRank
  return (at(one)?.name ?? '') < (at(other)?.name ?? '')
}
