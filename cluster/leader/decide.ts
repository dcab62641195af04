import type { Placement } from '../fleet/placement.ts'
import { isAnchored } from '../fleet/placement.ts'
import type { Sight } from './silence.ts'

/** What the leader knows of a machine's object. */
export interface MachineSituation {
  wanted: 'Run' | 'Rest' | 'Gone'
  /** Its last run ended by itself, and by its policy there is no other. */
  isOver: boolean
  /** Whether somebody still has to let go of it: our finalizer is there. */
  held: boolean
  /** The host in its status. */
  host?: string
  /** Until its time to live is over. */
  lifeLeftMs?: number
}

/** All that the leader's next step for one machine depends on. */
export interface Situation {
  /** While a restored fleet is put together again, nothing is decided. */
  recovering: boolean
  machine: MachineSituation | undefined
  placement: Pick<Placement, 'state' | 'host' | 'diskEpoch' | 'onHostLoss'> | undefined
  /** The host of the placement. */
  sight: Sight
  /** How long the host may still take to claim what it was assigned. */
  claimLeftMs: number
  /** How long the record of a forgotten host's machine is still kept. */
  tombstoneLeftMs: number
}

/**
 * The leader's next step for a machine. `place`: it wants a host. `adopt`: its host has it from
 * before there were placements. `lose`: it belongs to no host any more; `unclaimed` when its host
 * never took it. `release`: nobody holds anything for it, so its deletion can end. `unrecord`: the
 * placement of a machine that is gone. `expire`: its time is over and no host has it to see to
 * that. `tell`: its host can't say how it is.
 */
export type Decision =
  | { step: 'rest' }
  | { step: 'wait'; forMs: number }
  | { step: 'place'; lifeLeftMs?: number }
  | { step: 'adopt'; host: string }
  | { step: 'lose'; cause: 'HostLost' | 'NotClaimed' }
  | { step: 'release'; keepRecord: boolean }
  | { step: 'unrecord' }
  | { step: 'expire' }
  | { step: 'tell'; news: 'HostLost' | 'HostForgotten' }

const rest: Decision = { step: 'rest' }

/** The next step, from any situation. */
export function decide(situation: Situation): Decision {
  const { machine, placement, recovering } = situation
  if (recovering) return placement?.state === 'Gone' ? tellGone(machine) : rest
  if (machine === undefined) return decideWithoutMachine(situation)
  if (placement === undefined) return decideUnplaced(machine)
  if (placement.state === 'Gone') {
    const deleting = machine.wanted === 'Gone' && machine.held
    return deleting ? { step: 'release', keepRecord: true } : tellGone(machine)
  }
  if (isHostless(placement)) return decideHostless(situation, machine)
  return decideHeld(situation, machine)
}

function tellGone(machine: MachineSituation | undefined): Decision {
  return machine === undefined ? rest : { step: 'tell', news: 'HostForgotten' }
}

/** Nothing of it is on its host, and the host can't begin with it unless it claims it first. */
function isHostless(placement: NonNullable<Situation['placement']>): boolean {
  const { state } = placement
  if (state === 'Lost') return true
  return (state === 'Assigned' || state === 'Refused') && !isAnchored(placement as Placement)
}

function decideWithoutMachine({ placement, tombstoneLeftMs }: Situation): Decision {
  if (placement === undefined) return rest
  if (placement.state !== 'Gone' || tombstoneLeftMs <= 0) return { step: 'unrecord' }
  return { step: 'wait', forMs: tombstoneLeftMs }
}

function decideUnplaced(machine: MachineSituation): Decision {
  if (machine.host !== undefined && machine.held) return { step: 'adopt', host: machine.host }
  if (machine.wanted === 'Gone') {
    return machine.held ? { step: 'release', keepRecord: false } : rest
  }
  return decideWaiting(machine)
}

/** It has no host: it may want one, and nobody else sees to its time to live. */
function decideWaiting(machine: MachineSituation): Decision {
  const { lifeLeftMs } = machine
  if (lifeLeftMs !== undefined && lifeLeftMs <= 0) return { step: 'expire' }
  const life = lifeLeftMs === undefined ? {} : { lifeLeftMs }
  if (machine.wanted === 'Run') return { step: 'place', ...life }
  return lifeLeftMs === undefined ? rest : { step: 'wait', forMs: lifeLeftMs }
}

function decideHostless(situation: Situation, machine: MachineSituation): Decision {
  const { placement, sight, claimLeftMs } = situation
  if (machine.wanted === 'Gone') {
    return machine.held ? { step: 'release', keepRecord: false } : rest
  }
  if (placement?.state !== 'Assigned') return decideWaiting(machine)
  // Without a lease it can't be claimed any more, so there is nothing to wait for.
  if (sight.is !== 'Lives') return { step: 'lose', cause: 'HostLost' }
  if (claimLeftMs <= 0) return { step: 'lose', cause: 'NotClaimed' }
  return { step: 'wait', forMs: claimLeftMs }
}

/** Its host has its disk, perhaps its guest. */
function decideHeld(situation: Situation, machine: MachineSituation): Decision {
  const { placement, sight } = situation
  if (placement === undefined) return rest
  if (sight.is === 'Lives') {
    const asksForRoom = placement.state === 'Waking' || placement.state === 'Refused'
    return asksForRoom && machine.wanted === 'Run' ? { step: 'place' } : rest
  }
  if (sight.is === 'Silent') return { step: 'wait', forMs: sight.leftMs }
  const hasDisk = isAnchored(placement as Placement)
  if (!hasDisk) return { step: 'lose', cause: 'HostLost' }
  const wait: Decision = { step: 'tell', news: 'HostLost' }
  if (placement.onHostLoss === 'Wait') return wait
  // A run that ended by itself is not done again because its host is gone.
  const rests = machine.wanted === 'Rest' || (machine.wanted === 'Run' && machine.isOver)
  return placement.state === 'Resting' && rests ? wait : { step: 'lose', cause: 'HostLost' }
}
