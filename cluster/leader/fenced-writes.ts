import { backoffMs } from '../../base/backoff.ts'
import { type Clock, sleep } from '../../base/clock.ts'
import { isFailure, MacfleetError } from '../../base/errors.ts'
import { type Log, messageOf } from '../../base/log.ts'
import type { Compare, Entry, Operation, Store, TransactionResult } from '../store/store.ts'
import type { Term } from './leadership.ts'
import type { FleetView } from './view.ts'

/** Writes that belong together, and what must hold for them: each key written is compared. */
export interface Part {
  compare: readonly Compare[]
  operations: readonly ({ put: string; value: object } | { delete: string })[]
}

/** The leader's writes: each compares the leader's key, so none outlasts its term. */
export interface FencedWrites {
  /**
   * Writes as many parts as can be, in one transaction: those whose compares don't hold are left
   * out. It answers when nothing of it can be written any more, and not before: a write whose
   * answer was lost is sent again, so that it succeeds or is seen to rest on what has changed.
   * What is learned goes into the view.
   * @returns the parts that are known to be written; of one that was sent again the view may know
   *   better
   * @throws TermOver when this host leads no longer; storeFull, storeRequestTooLarge
   */
  writeAll<T extends Part>(parts: readonly T[]): Promise<Set<T>>
  /** One part alone. @returns whether it was written */
  write(part: Part): Promise<boolean>
}

/** What they need. */
export interface FencedWritesComponents {
  store: Store
  view: Pick<FleetView, 'learn' | 'entry'>
  clock: Clock
  log: Log
}

/** This host leads no longer: whatever it still meant to do is not its to do. */
export class TermOver extends Error {
  constructor() {
    super('this host leads no longer')
    this.name = 'TermOver'
  }
}

const retry = { firstMs: 50, mostMs: 2_000 }
/** Compares that failed and hold again, in a row, before the parts are given up for now. */
const mostRounds = 4

/** Makes the writes of one term. */
export function createFencedWrites(term: Term, components: FencedWritesComponents): FencedWrites {
  const { view } = components

  const writeAll = async <T extends Part>(parts: readonly T[]): Promise<Set<T>> => {
    const written = new Set<T>()
    let left: readonly T[] = parts
    for (let round = 0; round < mostRounds && left.length > 0; round++) {
      const result = await settle(term, left, components)
      if (result.succeeded) {
        for (const part of left) learnWritten(part, result.revision, view)
        for (const part of left) written.add(part)
        break
      }
      const now = currentOf([term.compare, ...left.flatMap(({ compare }) => compare)], result)
      if (!holds(term.compare, now)) throw new TermOver()
      now.delete(term.compare.key)
      for (const [key, entry] of now) view.learn(key, entry, result.revision)
      const held = left.filter(part => part.compare.every(compare => holds(compare, now)))
      if (held.length < left.length) round = -1
      left = held
    }
    return written
  }
  return {
    writeAll,
    write: async part => (await writeAll([part])).has(part),
  }
}

/** Sends a transaction until its outcome is known. */
async function settle(
  term: Term,
  parts: readonly Part[],
  { store, clock, log }: FencedWritesComponents,
): Promise<TransactionResult> {
  const compare = [term.compare, ...parts.flatMap(part => part.compare)]
  const operations = parts.flatMap(part => part.operations) as Operation[]
  for (let failures = 0; ; ) {
    if (term.signal.aborted) throw new TermOver()
    try {
      return await store.transaction({ compare, operations })
    } catch (error) {
      if (!isDoubtful(error)) throw error
      failures++
      log.debug({ failures, error: messageOf(error) }, 'a decision may not have been written')
      await sleep(clock, backoffMs(retry, failures), term.signal).catch(() => {})
    }
  }
}

/** Whether the write may have happened all the same. */
function isDoubtful(error: unknown): boolean {
  const refusals = ['storeFull', 'storeRequestTooLarge', 'tooMany', 'leaseNotFound'] as const
  return error instanceof MacfleetError && !refusals.some(code => isFailure(error, code))
}

function currentOf(
  compare: readonly Compare[],
  { current }: TransactionResult,
): Map<string, Entry | undefined> {
  return new Map(compare.map(({ key }, index) => [key, current[index]]))
}

function holds(compare: Compare, now: ReadonlyMap<string, Entry | undefined>): boolean {
  const entry = now.get(compare.key)
  return 'modRevision' in compare
    ? compare.modRevision === (entry?.modRevision ?? 0)
    : compare.createRevision === (entry?.createRevision ?? 0)
}

function learnWritten(part: Part, revision: number, view: FencedWritesComponents['view']): void {
  for (const operation of part.operations) {
    if ('delete' in operation) {
      view.learn(operation.delete, undefined, revision)
      continue
    }
    const key = operation.put
    const before = view.entry(key)
    const createRevision = before?.createRevision ?? revision
    const value = operation.value as Entry['value']
    view.learn(key, { key, value, createRevision, modRevision: revision }, revision)
  }
}
