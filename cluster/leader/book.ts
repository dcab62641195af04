import { backoffMs } from '../../base/backoff.ts'
import type { Clock } from '../../base/clock.ts'
import type { FactsView } from '../fleet/facts.ts'
import { type Placement, takesRoom } from '../fleet/placement.ts'
import { createFleetState, type IndexedState } from '../scheduler/fleet-state.ts'
import type { HostView, Policy, Refusal } from '../scheduler/types.ts'
import { hostViewOf, placedOf, wantedOf } from './scheduling.ts'
import type { FleetView } from './view.ts'

/** How the book is kept. */
export interface BookInit {
  policy?: Policy | undefined
  /** Whether a host takes machines: its lease is held. */
  lives(host: string): boolean
}

/** What it is kept from. */
export interface BookComponents {
  view: FleetView
  facts: FactsView
  clock: Clock
}

/** The scheduler's state, kept in step with what the leader knows and with what it is writing. */
export interface Book {
  readonly state: IndexedState
  /** What a machine takes, as its placement has it now. */
  occupy(uid: string): void
  /** What is known of a host. @returns whether it may matter to a machine that waits */
  setHost(name: string): boolean
  want(uid: string): void
  unwant(uid: string): void
  /** The host said no, or nothing at all: for a while others are asked first. */
  refused(uid: string, refusal: Pick<Refusal, 'host' | 'reason'>): void
  /** An assignment is being written: it counts until it is known whether it was. */
  begin(next: Placement): void
  /** It is known: what is in the view counts again. */
  settle(uid: string): void
  isSettling(uid: string): boolean
  /** A host has taken the machine, or it is gone: who refused it before does not matter. */
  forgive(uid: string): void
}

/** For so long a host that refused a machine is not asked again; longer each time. */
const refusalWait = { firstMs: 2_000, mostMs: 60_000 }
/** Hosts of which a machine's refusals are kept. */
const refusalsMost = 32

/** An empty book. */
export function createBook(init: BookInit, components: BookComponents): Book {
  const { view, facts, clock } = components
  const state = createFleetState(init.policy)
  const settling = new Map<string, Placement>()
  const refusals = new Map<string, (Refusal & { times: number })[]>()
  const hosts = new Map<string, string>()

  return {
    state,
    occupy(uid) {
      const placement = settling.get(uid) ?? view.placement(uid)?.value
      if (placement === undefined || !takesRoom(placement)) state.vacate(uid)
      else state.occupy(placedOf(placement, view.machine(uid)?.value))
    },
    setHost(name) {
      const host = view.host(name)?.value
      const seen = host && hostViewOf(host, init.lives(name), view.member(name), facts)
      const signature = seen && signatureOf(seen)
      const before = hosts.get(name)
      if (seen === undefined || signature === undefined) {
        hosts.delete(name)
        state.removeHost(name)
      } else {
        hosts.set(name, signature)
        // Also when nothing else has changed: what it holds of images is asked anew by this.
        state.setHost(seen)
      }
      return signature !== before
    },
    want(uid) {
      const machine = view.machine(uid)?.value
      if (machine === undefined) return
      const placement = view.placement(uid)?.value
      state.want(wantedOf(machine, placement, view.image(machine), refusals.get(uid) ?? []))
    },
    unwant: uid => state.unwant(uid),
    refused(uid, { host, reason }) {
      const known = refusals.get(uid) ?? []
      const times = (known.find(other => other.host === host)?.times ?? 0) + 1
      const untilMs = clock.wallMs() + backoffMs(refusalWait, times)
      const others = known.filter(other => other.host !== host).slice(1 - refusalsMost)
      refusals.set(uid, [...others, { host, reason, untilMs, times }])
    },
    begin(next) {
      settling.set(next.uid, next)
      state.unwant(next.uid)
      state.occupy(placedOf(next, view.machine(next.uid)?.value))
    },
    settle: uid => void settling.delete(uid),
    isSettling: uid => settling.has(uid),
    forgive: uid => void refusals.delete(uid),
  }
}

/** Equal for hosts that take the same machines. */
function signatureOf({ mayHoldImage: _, cpuFlags, ...host }: HostView): string {
  return JSON.stringify([host, [...(cpuFlags ?? [])]])
}
