import { type Clock, timestamp } from '../../base/clock.ts'
import { type Log, messageOf } from '../../base/log.ts'
import { isAnchored, type Placement, wantsPlace } from '../fleet/placement.ts'
import { schedule } from '../scheduler/schedule.ts'
import type { Decision, Waiting } from '../scheduler/types.ts'
import type { Book } from './book.ts'
import { type FencedWrites, TermOver } from './fenced-writes.ts'
import { type AssignmentPart, assignmentPart } from './parts.ts'
import type { FleetView } from './view.ts'

/** Who is told what came of it. */
export interface PlacingInit {
  /** A machine was given to a host. */
  onPlaced(part: AssignmentPart, before: Placement | undefined): void
  /** It was not, because something had changed: it has to be looked at again. */
  onUnsettled(uid: string): void
  /** For these no host was found. @returns after how long it should be called again, if so */
  onWaiting(waiting: readonly Waiting[]): Promise<number | undefined>
}

/** What placing needs. */
export interface PlacingComponents {
  view: FleetView
  book: Book
  writes: FencedWrites
  clock: Clock
  log: Log
}

/** Gives machines to hosts, a round at a time. */
export interface Placing {
  /** Something changed that may give a machine a place. */
  wake(): void
  /** Works until the signal is aborted. @throws TermOver */
  run(signal: AbortSignal): Promise<void>
}

/** Assignments of one transaction: with two compares each, and the leader's, within its bounds. */
const batchParts = 40
/** Transactions of one round; they are under way at once. */
const batches = 8
/** While machines wait, a round at the latest so often: refusals end, and patience does. */
const againMs = 2_000
/** The wait after a round whose writes failed. */
const failureMs = 1_000

/** Makes the loop; nothing happens until `run()`. */
export function createPlacing(init: PlacingInit, components: PlacingComponents): Placing {
  const { view, book, writes, clock, log } = components
  let wanted = true
  let onWake = () => {}

  const wake = (): void => {
    wanted = true
    onWake()
  }
  const untilWoken = async (mostMs: number | undefined, signal: AbortSignal): Promise<void> => {
    if (wanted || signal.aborted) return
    await new Promise<void>(resolve => {
      const finish = (): void => {
        timer?.cancel()
        signal.removeEventListener('abort', finish)
        resolve()
      }
      const timer = mostMs === undefined ? undefined : clock.setTimer(mostMs, finish)
      signal.addEventListener('abort', finish, { once: true })
      onWake = finish
    })
    onWake = () => {}
  }
  const partOf = ({ machine, host }: Decision): AssignmentPart | undefined => {
    const known = view.machine(machine.uid)
    if (known === undefined) return undefined
    const from = view.placement(machine.uid)
    if (from !== undefined) {
      // The queue may be older than the view.
      if (!wantsPlace(from.value)) return undefined
      if (isAnchored(from.value) && from.value.host !== host) return undefined
    }
    return assignmentPart(known, from, { host, at: timestamp(clock), request: machine.request })
  }
  const commit = async (parts: readonly AssignmentPart[]): Promise<void> => {
    const before = new Map(parts.map(({ next }) => [next.uid, view.placement(next.uid)?.value]))
    try {
      const written = await writes.writeAll(parts)
      for (const part of written) init.onPlaced(part, before.get(part.next.uid))
    } finally {
      for (const { next } of parts) {
        book.settle(next.uid)
        book.occupy(next.uid)
        init.onUnsettled(next.uid)
      }
    }
  }
  /** @returns after how long there should be another */
  const round = async (): Promise<number | undefined> => {
    const parts: AssignmentPart[] = []
    const place = (decision: Decision): boolean => {
      const part = partOf(decision)
      if (part === undefined) return false
      parts.push(part)
      book.begin(part.next)
      return true
    }
    const bounds = { nowMs: clock.wallMs(), decisionsMost: batchParts * batches }
    const { waiting, more } = schedule(book.state, { place }, bounds)
    const told = init.onWaiting(waiting)
    const writing: Promise<void>[] = []
    for (let at = 0; at < parts.length; at += batchParts) {
      writing.push(commit(parts.slice(at, at + batchParts)))
    }
    const settled = await Promise.allSettled([...writing, told])
    for (const one of settled) if (one.status === 'rejected') throw one.reason
    if (more) return 0
    return waiting.length === 0 ? undefined : Math.min(againMs, (await told) ?? againMs)
  }

  return {
    wake,
    async run(signal) {
      let mostMs: number | undefined
      while (!signal.aborted) {
        await untilWoken(mostMs, signal)
        if (signal.aborted) return
        wanted = false
        try {
          mostMs = await round()
          if (mostMs === 0) wanted = true
        } catch (error) {
          if (error instanceof TermOver) throw error
          log.warn({ error: messageOf(error) }, 'machines could not be placed, will retry')
          wanted = false
          mostMs = failureMs
        }
      }
    },
  }
}
