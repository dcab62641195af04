import { assert } from '../../base/errors.ts'
import type { IndexedState } from './fleet-state.ts'
import { createReasons } from './reasons.ts'
import { createTurns } from './turns.ts'
import type { Planner, Round } from './types.ts'

/**
 * Finds places for machines that want one, in the order of the queue. It reads the state, hands its
 * decisions to the planner, and knows nothing else; from the same state come the same decisions.
 *
 * The best host of all is found, not a good one of a sample: a decision is a scan over columns of
 * numbers, one per host. A machine like one that fitted nowhere is not looked for again.
 * @param nowMs wall clock
 * @param decisionsMost after so many the round ends, so that its caller can see to other things
 */
export function schedule(
  state: IndexedState,
  planner: Planner,
  { nowMs, decisionsMost }: { nowMs: number; decisionsMost: number },
): Round {
  const round: Round = { placed: [], waiting: [], more: false }
  const turns = createTurns(state, nowMs)
  const reasons = createReasons(turns.kept)
  let staying = 0
  for (const machine of [...state.queue()]) {
    if (round.placed.length >= decisionsMost) return { ...round, more: true }
    const turn = turns.next(machine)
    if (turn.best === undefined) {
      staying++
      round.waiting.push({ machine, place: staying, reasons: () => reasons.of(turn.search) })
      continue
    }
    const host = state.table.at(turn.best.slot)?.name ?? ''
    const decision = { machine, host, score: turn.best.score }
    if (planner.place(decision)) {
      assert(state.hostOf(machine.uid) === host, 'a planner counts what it takes')
      round.placed.push(decision)
    } else {
      staying++
      turns.hold(turn)
    }
  }
  return round
}
