import { preciseTimestamp, timestamp } from '../../base/clock.ts'
import type { Again } from '../../base/work-queue.ts'
import { findCondition } from '../../resources/condition.ts'
import { type VirtualMachine, virtualMachineKind } from '../../resources/virtual-machine.ts'
import type { EventContent } from '../event-recorder.ts'
import { isAnchored, type Placement, takesRoom } from '../fleet/placement.ts'
import { type Decision, decide, type Situation } from './decide.ts'
import type { Part } from './fenced-writes.ts'
import {
  hostForgottenStatus,
  hostLostStatus,
  scheduledStatus,
  toldByHost,
  toldReady,
  toldUnplaced,
  unplacedStatus,
} from './machine-status.ts'
import {
  absenceOf,
  adoptionPart,
  lossPart,
  releasePart,
  statusPart,
  unrecordPart,
} from './parts.ts'
import { machineSituationOf } from './scheduling.ts'
import type { TermContext } from './term-context.ts'

/** Takes each machine its next step. */
export interface MachineLane {
  /** Something of the machine or its placement is new: the book learns of it at once. */
  onNews(uid: string): void
  /** Decides the next step and takes it. */
  handle(uid: string): Promise<Again>
  /** The machine was given to a host. */
  onPlaced(next: Placement, before: Placement | undefined): void
}

/** A host may say nothing of what it was assigned for so long, before another is asked. */
const claimMs = 5_000
/** The record of a forgotten host's machine is kept so long after the machine is gone. */
const tombstoneMs = 30 * 24 * 3_600_000
/** A step that was not taken, because something had changed, is looked at again by then. */
const againMs = 1_000
/** No timer is set for longer. */
const mostMs = 3_600_000

interface Unclaimed {
  /** Of its placement. */
  revision: number
  /** Since when this leader sees it. */
  sinceMs: number
  /** What was told of the machine then; only when it was this leader that assigned it. */
  told?: string
}

/** @param isRecovering whether nothing may be decided now */
export function createMachineLane(context: TermContext, isRecovering: () => boolean): MachineLane {
  return new Lane(context, isRecovering)
}

class Lane implements MachineLane {
  readonly #context: TermContext
  readonly #isRecovering: () => boolean
  /** What was assigned and not yet claimed, by uid. */
  readonly #assigned = new Map<string, Unclaimed>()
  /** Refusals that were counted: the epochs, by uid. */
  readonly #refused = new Map<string, number>()
  /** Since when machines wait, on our clock. */
  readonly #waiting = new Map<string, number>()

  constructor(context: TermContext, isRecovering: () => boolean) {
    this.#context = context
    this.#isRecovering = isRecovering
  }

  onNews(uid: string): void {
    const { view, book, placing, teller } = this.#context
    const before = book.state.hostOf(uid)
    book.occupy(uid)
    if (before !== undefined && before !== book.state.hostOf(uid)) placing.wake()
    const known = view.placement(uid)
    this.#countAssigned(uid, known?.value, known?.entry.modRevision ?? 0)
    this.#countRefusal(uid, known?.value)
    if (known === undefined && view.machine(uid) === undefined) {
      this.#waiting.delete(uid)
      book.unwant(uid)
      book.forgive(uid)
      teller.forget(uid)
    }
    if (known?.value.state === 'Claimed') book.forgive(uid)
  }

  onPlaced(next: Placement, before: Placement | undefined): void {
    const { uid, host } = next
    const { metrics, clock, log, teller } = this.#context
    const nowMs = clock.monotonicMs()
    metrics.placed(nowMs - (this.#waiting.get(uid) ?? nowMs))
    this.#waiting.delete(uid)
    teller.forget(uid)
    log.info({ uid, host, epoch: next.epoch }, 'a machine was given to a host')
    const replaces = before?.state === 'Lost' && before.reason === 'HostLost'
    const message = replaces
      ? `A new copy was given to the host ${host}, because ${before.host} is lost`
      : `It was given to the host ${host}`
    this.#record(uid, { type: 'Normal', reason: replaces ? 'Replaced' : 'Scheduled', message })
  }

  async handle(uid: string): Promise<Again> {
    const { view, book } = this.#context
    if (!view.isReady() || book.isSettling(uid)) return undefined
    const situation = this.#situationOf(uid)
    const decision = decide(situation)
    if (decision.step === 'place') return this.#want(uid, decision)
    book.unwant(uid)
    this.#waiting.delete(uid)
    if (decision.step === 'rest') return await this.#tellScheduled(uid, situation)
    if (decision.step === 'wait') return { againMs: Math.min(mostMs, decision.forMs) }
    if (decision.step === 'expire') return await this.#expire(uid)
    if (decision.step === 'tell') return await this.#tell(uid, decision.news)
    return await this.#decideInStore(uid, decision)
  }

  #situationOf(uid: string): Situation {
    const { view, silences, clock } = this.#context
    const machine = view.machine(uid)?.value
    const placement = view.placement(uid)?.value
    const changedMs = Date.parse(placement?.changedAt ?? '')
    return {
      recovering: this.#isRecovering(),
      machine: machine && machineSituationOf(machine, clock.wallMs()),
      placement,
      sight: placement === undefined ? { is: 'Lives' } : silences.sight(placement.host),
      claimLeftMs: this.#claimLeftMs(uid),
      tombstoneLeftMs: changedMs + tombstoneMs - clock.wallMs(),
    }
  }

  #countAssigned(uid: string, placement: Placement | undefined, revision: number): void {
    const { clock, book, view } = this.#context
    if (placement?.state !== 'Assigned') {
      this.#assigned.delete(uid)
    } else if (this.#assigned.get(uid)?.revision !== revision) {
      const told = book.isSettling(uid) ? { told: toldReady(view.machine(uid)?.value) } : {}
      this.#assigned.set(uid, { revision, sinceMs: clock.monotonicMs(), ...told })
    }
  }

  /** A host that told what it waits for is at work: it refuses what it can't start. */
  #claimLeftMs(uid: string): number {
    const { view, clock } = this.#context
    const unclaimed = this.#assigned.get(uid)
    if (unclaimed === undefined) return claimMs
    const machine = view.machine(uid)?.value
    const isTold =
      unclaimed.told === undefined ? toldByHost(machine) : toldReady(machine) !== unclaimed.told
    if (isTold) return Number.POSITIVE_INFINITY
    return unclaimed.sinceMs + claimMs - clock.monotonicMs()
  }

  #countRefusal(uid: string, placement: Placement | undefined): void {
    if (placement === undefined) this.#refused.delete(uid)
    if (placement?.state !== 'Refused' || this.#refused.get(uid) === placement.epoch) return
    this.#refused.set(uid, placement.epoch)
    const { host, reason = 'Refused', message = 'the host gave no reason' } = placement
    this.#context.book.refused(uid, { host, reason })
    const said = `The host ${host} refused it: ${message}`
    this.#record(uid, { type: 'Warning', reason: 'Refused', message: said })
  }

  #want(uid: string, { lifeLeftMs }: Decision & { step: 'place' }): Again {
    const { book, placing, clock } = this.#context
    if (!this.#waiting.has(uid)) this.#waiting.set(uid, clock.monotonicMs())
    book.want(uid)
    placing.wake()
    return lifeLeftMs === undefined ? undefined : { againMs: Math.min(mostMs, lifeLeftMs) }
  }

  /** A machine that was told that it waits, and has a host now. */
  async #tellScheduled(uid: string, { placement }: Situation): Promise<Again> {
    const { view, writes, clock } = this.#context
    const machine = view.machine(uid)
    if (machine === undefined || placement === undefined) return undefined
    if (!takesRoom(placement as Placement) || toldUnplaced(machine.value) === undefined) {
      return undefined
    }
    const status = scheduledStatus(machine.value, placement.host, timestamp(clock))
    return (await writes.write(statusPart(machine, status))) ? undefined : { againMs }
  }

  async #expire(uid: string): Promise<Again> {
    const { view, objects, clock } = this.#context
    const machine = view.machine(uid)?.value
    if (machine === undefined) return undefined
    const message = `Its time to live of ${machine.spec.ttl} is over (${preciseTimestamp(clock)})`
    await objects.remove(virtualMachineKind, machine.metadata, { uid })
    this.#record(uid, { type: 'Normal', reason: 'Expired', message })
    return { againMs }
  }

  async #tell(uid: string, news: 'HostLost' | 'HostForgotten'): Promise<Again> {
    const { view, writes, clock } = this.#context
    const machine = view.machine(uid)
    const placement = view.placement(uid)?.value
    if (machine === undefined || placement === undefined) return undefined
    const { status } = machine.value
    if (findCondition(status?.conditions, 'Ready')?.reason === news) return undefined
    const isLost = news === 'HostLost'
    const make = isLost ? hostLostStatus : hostForgottenStatus
    const part = statusPart(machine, make(machine.value, placement.host, timestamp(clock)))
    const compare = [...part.compare, ...(isLost ? absenceOf(placement.host, view) : [])]
    if (!(await writes.write({ ...part, compare }))) return { againMs }
    const message = isLost
      ? `Nothing is heard of the host ${placement.host}; it waits for that host`
      : `The host ${placement.host} was given up for good`
    this.#record(uid, { type: 'Warning', reason: news, message })
    return undefined
  }

  async #decideInStore(
    uid: string,
    decision: Decision & { step: 'adopt' | 'lose' | 'release' | 'unrecord' },
  ): Promise<Again> {
    const part = this.#partOf(uid, decision)
    if (part === undefined) return undefined
    const before = this.#context.view.placement(uid)?.value
    if (!(await this.#context.writes.write(part))) return { againMs }
    const { log } = this.#context
    log.info({ uid, ...decision, host: before?.host ?? '' }, 'the leader took a step')
    if (decision.step === 'lose' && before !== undefined) this.#onLost(before, decision.cause)
    return undefined
  }

  #partOf(
    uid: string,
    decision: Decision & { step: 'adopt' | 'lose' | 'release' | 'unrecord' },
  ): Part | undefined {
    const { view, clock } = this.#context
    const machine = view.machine(uid)
    const placement = view.placement(uid)
    const at = timestamp(clock)
    if (decision.step === 'adopt') return machine && adoptionPart(machine, decision.host, at)
    if (decision.step === 'release') {
      return machine && releasePart(machine, placement, decision.keepRecord)
    }
    if (placement === undefined) return undefined
    if (decision.step === 'unrecord') return unrecordPart(placement, view)
    const message = lossMessage(placement.value, decision.cause)
    const why = { reason: decision.cause, message }
    const loss = lossPart(placement, { at, ...why }, view)
    if (machine === undefined || !isAnchored(placement.value)) return loss
    const status = statusPart(machine, unplacedStatus(machine.value, why, at))
    return {
      compare: [...loss.compare, ...status.compare],
      operations: [...loss.operations, ...status.operations],
    }
  }

  #onLost(before: Placement, cause: 'HostLost' | 'NotClaimed'): void {
    const { book, metrics } = this.#context
    const { uid, host } = before
    metrics.lost(cause)
    if (cause === 'NotClaimed') book.refused(uid, { host, reason: cause })
    const message = lossMessage(before, cause)
    this.#record(uid, { type: 'Warning', reason: cause, message })
  }

  #record(uid: string, said: EventContent): void {
    const machine: VirtualMachine | undefined = this.#context.view.machine(uid)?.value
    if (machine !== undefined) this.#context.events.record(machine, said)
  }
}

function lossMessage({ host }: Placement, cause: 'HostLost' | 'NotClaimed'): string {
  return cause === 'HostLost'
    ? `The host ${host} is lost; the machine starts anew on another`
    : `The host ${host} did not take it within ${claimMs / 1000} s; another is asked`
}
