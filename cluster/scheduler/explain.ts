import type { IndexedState } from './fleet-state.ts'
import { placedFirst } from './queue.ts'
import { createReasons, obstaclesOf } from './reasons.ts'
import { fixedParts } from './score.ts'
import { changingParts, comesFirst, fixedPart, type Search } from './search.ts'
import { createTurns, type Turns } from './turns.ts'
import type { Explanation, HostVerdict, Wanted } from './types.ts'

/**
 * What every host is to a machine now: one that waits, that is only thought of (to place it for a
 * dry run), or that has a place, which is looked at as if it had none yet. Those ahead of it in the
 * queue that have no host keep room from it, as they do in a round.
 * @param nowMs wall clock
 */
export function explain(state: IndexedState, machine: Wanted, nowMs: number): Explanation {
  const placed = state.placed(machine.uid)
  if (placed === undefined) return explained(state, machine, nowMs)
  state.vacate(machine.uid)
  try {
    return { current: placed.host, ...explained(state, machine, nowMs) }
  } finally {
    state.occupy(placed)
  }
}

function explained(state: IndexedState, machine: Wanted, nowMs: number): Explanation {
  const queue = state.queue()
  const turns = createTurns(state, nowMs)
  for (const other of queue) {
    if (other.uid === machine.uid || placedFirst(other, machine) > 0) break
    turns.next(other)
  }
  const { search, best: found } = turns.next(machine)
  const best = found && state.table.at(found.slot)?.name
  const at = queue.findIndex(({ uid }) => uid === machine.uid)
  return {
    ...(best === undefined ? {} : { best }),
    ...(at < 0 ? {} : { place: at + 1 }),
    queued: queue.length,
    reasons: createReasons(turns.kept).of(search),
    hosts: verdictsOn(search, turns.kept),
  }
}

function verdictsOn(search: Search, kept: Turns['kept']): HostVerdict[] {
  const { wanted, state } = search
  const taking: { slot: number; score: number; verdict: HostVerdict }[] = []
  const objecting: HostVerdict[] = []
  for (let slot = 0; slot < state.table.size; slot++) {
    const host = state.table.at(slot)
    if (host === undefined) continue
    const obstacles = obstaclesOf(search, kept, host, slot)
    if (obstacles.length > 0) {
      objecting.push({ host: host.name, objections: obstacles.map(({ text }) => text) })
      continue
    }
    const fixed = wanted.anchor === undefined ? fixedParts(wanted, host) : { image: 0, taints: 0 }
    const parts = { ...fixed, ...changingParts(search, slot) }
    const score = fixedPart(search, slot) + parts.room + parts.spread
    taking.push({ slot, score, verdict: { host: host.name, objections: [], score, parts } })
  }
  taking.sort(
    (one, other) => other.score - one.score || (comesFirst(search, one.slot, other.slot) ? -1 : 1),
  )
  objecting.sort((one, other) => (one.host < other.host ? -1 : 1))
  return [...taking.map(({ verdict }) => verdict), ...objecting]
}
