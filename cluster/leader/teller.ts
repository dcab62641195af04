import { type Clock, timestamp } from '../../base/clock.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import type { Waiting } from '../scheduler/types.ts'
import type { FencedWrites, Part } from './fenced-writes.ts'
import { toldUnplaced, unplacedStatus, type Why, waitingStatus } from './machine-status.ts'
import { statusPart } from './parts.ts'
import type { FleetView } from './view.ts'

/** What the teller needs. */
export interface TellerComponents {
  view: FleetView
  writes: FencedWrites
  clock: Clock
}

/** Tells machines that wait for a host why, in their status; seldom enough to be cheap. */
export interface Teller {
  /**
   * @param queued how many wait in all
   * @returns after how long there is more to tell, if there is
   */
  tell(waiting: readonly Waiting[], queued: number): Promise<number | undefined>
  /** Forgets a machine that waits no longer. */
  forget(uid: string): void
}

/** A machine is told of new reasons at most so often, and of its place in the queue alone, so. */
const reasonsMs = 5_000
const placeMs = 30_000
/** Machines told at once, in one transaction; and the wait before the next ones are. */
const batchParts = 60
const batchMs = 500

interface Told {
  atMs: number
  lookedMs: number
  reasons: string
}

/** @param onTold called with a machine that was told for the first time that it has to wait */
export function createTeller(
  onTold: (machine: VirtualMachine, why: Why) => void,
  components: TellerComponents,
): Teller {
  const { view, writes, clock } = components
  const told = new Map<string, Told>()
  let nextMs = 0

  const partOf = (waiting: Waiting, queued: number): TellingPart | undefined => {
    const nowMs = clock.monotonicMs()
    const { uid } = waiting.machine
    const known = view.machine(uid)
    if (known === undefined) return undefined
    const before = told.get(uid)
    if (before !== undefined && nowMs - before.lookedMs < reasonsMs) return undefined
    const reasons = reasonsOf(waiting)
    const message = `${reasons}; number ${waiting.place} of ${queued} that wait`
    const first = toldUnplaced(known.value)?.reason !== unschedulable
    const isNews =
      first || before?.reasons !== reasons || nowMs - (before?.atMs ?? nowMs) >= placeMs
    told.set(uid, { atMs: before?.atMs ?? nowMs, lookedMs: nowMs, reasons })
    const same = toldUnplaced(known.value)?.message === message
    if (!isNews || same) return undefined
    told.set(uid, { atMs: nowMs, lookedMs: nowMs, reasons })
    const why = { reason: unschedulable, message }
    const make = waiting.machine.anchor === undefined ? unplacedStatus : waitingStatus
    const part = statusPart(known, make(known.value, why, timestamp(clock)))
    return { ...part, machine: known.value, why, first }
  }

  return {
    async tell(waiting, queued) {
      const nowMs = clock.monotonicMs()
      if (nowMs < nextMs) return nextMs - nowMs
      const parts: TellingPart[] = []
      for (const one of waiting) {
        const part = partOf(one, queued)
        if (part !== undefined) parts.push(part)
        if (parts.length === batchParts) break
      }
      if (parts.length === 0) return undefined
      nextMs = nowMs + batchMs
      const written = await writes.writeAll(parts)
      for (const part of parts) {
        const { uid = '' } = part.machine.metadata
        if (!written.has(part)) told.delete(uid)
        else if (part.first) onTold(part.machine, part.why)
      }
      return parts.length === batchParts ? batchMs : undefined
    },
    forget: uid => void told.delete(uid),
  }
}

const unschedulable = 'Unschedulable'

interface TellingPart extends Part {
  machine: VirtualMachine
  why: Why
  first: boolean
}

function reasonsOf(waiting: Waiting): string {
  const reasons = waiting.reasons()
  if (reasons.length === 0) return 'No host takes it: there is none'
  const each = reasons.map(
    ({ hosts, text }) => `${hosts} ${hosts === 1 ? 'host' : 'hosts'}: ${text}`,
  )
  return `No host takes it: ${each.join('; ')}`
}
