import { type Clock, timestamp } from '../../base/clock.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import type { FactsView } from '../fleet/facts.ts'
import { wantsPlace } from '../fleet/placement.ts'
import { explain } from '../scheduler/explain.ts'
import type { Explanation, Policy } from '../scheduler/types.ts'
import type { Store } from '../store/store.ts'
import { createBook } from './book.ts'
import { machineSituationOf, wantedOf } from './scheduling.ts'
import { readFleet } from './view.ts'

/** How the fleet places machines: as its leader was told. */
export interface ExplainInit {
  fenced: boolean
  policy?: Policy | undefined
}

/** What explaining needs. */
export interface ExplainComponents {
  store: Store
  facts: FactsView
  clock: Clock
}

/**
 * Why a machine is where it is, or would go, or why nowhere: what the leader would say, from what
 * is in the store now. It works on any host, and for a machine that is not there yet (without uid).
 * @throws unavailable
 */
export async function explainPlacement(
  machine: VirtualMachine,
  init: ExplainInit,
  { store, facts, clock }: ExplainComponents,
): Promise<Explanation> {
  const view = await readFleet(store)
  const lives = (host: string) => !init.fenced || view.lease(host) !== undefined
  const book = createBook({ policy: init.policy, lives }, { view, facts, clock })
  for (const host of view.hosts()) book.setHost(host)
  for (const uid of view.uids()) {
    book.occupy(uid)
    if (isWaiting(uid)) book.want(uid)
  }
  const { uid, creationTimestamp = timestamp(clock) } = machine.metadata
  const given = { ...machine, metadata: { ...machine.metadata, creationTimestamp } }
  const placement = uid === undefined ? undefined : view.placement(uid)?.value
  const wanted = wantedOf(given, placement, view.image(machine), [])
  return explain(book.state, wanted, clock.wallMs())

  function isWaiting(uid: string): boolean {
    const other = view.machine(uid)?.value
    if (other === undefined) return false
    const { wanted, host } = machineSituationOf(other, clock.wallMs())
    const placement = view.placement(uid)?.value
    if (wanted !== 'Run') return false
    return placement === undefined ? host === undefined : wantsPlace(placement)
  }
}
