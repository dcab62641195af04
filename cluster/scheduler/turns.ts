import type { IndexedState } from './fleet-state.ts'
import { createHopeless } from './hopeless.ts'
import { createKeeps, type Keeps } from './keeps.ts'
import { createSearch, findBest, type Search } from './search.ts'
import type { Wanted } from './types.ts'

/** What came of a machine's turn: where it would go, or nowhere. */
export interface Turn {
  search: Search
  best: { slot: number; score: number } | undefined
}

/** Machines have their turn one by one, in the order of the queue. */
export interface Turns {
  /** Looks for the machine's host. One that has none keeps room from those that come after it. */
  next(machine: Wanted): Turn
  /** The best host is not decided upon; what it would have taken there is kept for it. */
  hold(turn: Turn): void
  /** What is kept by now. */
  readonly kept: Pick<Keeps, 'in'>
}

/** Nobody had a turn. */
export function createTurns(state: IndexedState, nowMs: number): Turns {
  const keeps = createKeeps(state, nowMs)
  const hopeless = createHopeless()

  const find = (search: Search): Turn['best'] => {
    const { wanted, room } = search
    // Where it matters on which host a machine's disk is, there is only one to look at.
    if (wanted.anchor !== undefined) return findBest(search, keeps)
    if (hopeless.has(search.verdicts, room)) return undefined
    const best = findBest(search, keeps)
    if (best === undefined && !wanted.refusals?.length) hopeless.add(search.verdicts, room)
    return best
  }

  return {
    kept: keeps,
    next(machine) {
      keeps.turnOf(machine)
      const search = createSearch(state, machine, nowMs)
      const best = find(search)
      if (best === undefined) keeps.add(machine)
      return { search, best }
    },
    hold({ best, search }) {
      if (best !== undefined) keeps.hold(best.slot, search.wanted)
    },
  }
}
