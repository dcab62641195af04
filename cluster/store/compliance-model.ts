import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Bench, collect } from './compliance-tools.ts'
import type { Compare, Entry, Operation, Transaction } from './store.ts'

/** A store as one would write it down on paper: a plain map, and a number. */
interface Model {
  revision: number
  entries: Map<string, Entry>
}

const keys = ['a', 'a/1', 'a/2', 'b', 'b/1'] as const
const anyKey = fc.constantFrom(...keys)

/** What JSON says of a value: its text has no -0, which fast-check makes now and then. */
const anyValue = fc.jsonValue({ maxDepth: 2 }).map(value => JSON.parse(JSON.stringify(value)))

const anyOperations: fc.Arbitrary<Operation[]> = fc
  .array(
    fc.oneof(
      { weight: 5, arbitrary: fc.record({ put: anyKey, value: anyValue }) },
      { weight: 3, arbitrary: fc.record({ delete: anyKey }) },
      { weight: 1, arbitrary: fc.record({ deletePrefix: fc.constantFrom('a/', 'b', 'c') }) },
    ),
    { maxLength: 4 },
  )
  .map(withoutClashes)

/** How a compare is aimed: at what is there, at what is not, or beside it. */
const anyAim = fc.record({
  key: anyKey,
  field: fc.constantFrom('modRevision', 'createRevision'),
  aim: fc.constantFrom('right', 'right', 'right', 'absent', 'wrong'),
})

const anyStep = fc.record({ aims: fc.array(anyAim, { maxLength: 2 }), operations: anyOperations })

function withoutClashes(operations: Operation[]): Operation[] {
  const taken = new Set<string>()
  return operations.filter(operation => {
    const touched =
      'put' in operation
        ? [operation.put]
        : 'delete' in operation
          ? [operation.delete]
          : keys.filter(key => key.startsWith(operation.deletePrefix))
    if (touched.some(key => taken.has(key))) return false
    for (const key of touched) taken.add(key)
    return true
  })
}

function aimAt(
  model: Model,
  { key, field, aim }: typeof anyAim extends fc.Arbitrary<infer T> ? T : never,
): Compare {
  const there = model.entries.get(key)
  const revision = aim === 'absent' ? 0 : aim === 'wrong' ? 10_000 : (there?.[field] ?? 0)
  return field === 'modRevision'
    ? { key, modRevision: revision }
    : { key, createRevision: revision }
}

/** Whether the model takes the transaction; if so it is done. */
function applyToModel(model: Model, { compare, operations }: Transaction): boolean {
  for (const one of compare) {
    const there = model.entries.get(one.key)
    const [wanted, found] =
      'modRevision' in one
        ? [one.modRevision, there?.modRevision]
        : [one.createRevision, there?.createRevision]
    if (wanted !== (found ?? 0)) return false
  }
  const revision = model.revision + 1
  for (const operation of operations) {
    if ('put' in operation) {
      const { put: key, value } = operation
      const createRevision = model.entries.get(key)?.createRevision ?? revision
      model.entries.set(key, { key, value, createRevision, modRevision: revision })
      model.revision = revision
      continue
    }
    for (const key of keys) {
      const hit =
        'delete' in operation ? key === operation.delete : key.startsWith(operation.deletePrefix)
      if (hit && model.entries.delete(key)) model.revision = revision
    }
  }
  return true
}

/** Registers the test that compares the store with its model. */
export function modelCompliance(bench: Bench): void {
  describe('the model', () => {
    it('and the store agree on every answer, and the watch replays the list', async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(anyStep, { maxLength: 25 }), async steps => {
          const store = await bench.restrict({})
          const model: Model = { revision: 1, entries: new Map() }
          for (const { aims, operations } of steps) {
            const transaction = { compare: aims.map(aim => aimAt(model, aim)), operations }
            const current = transaction.compare.map(({ key }) => model.entries.get(key))
            const succeeded = applyToModel(model, transaction)
            expect(await store.transaction(transaction)).toEqual({
              succeeded,
              revision: model.revision,
              current: succeeded ? [] : current,
            })
          }
          const replay = new Map<string, Entry>()
          for (const { events } of await collect(store, '', 1, model.revision)) {
            for (const { key, entry, previous } of events) {
              expect(previous).toEqual(replay.get(key))
              if (entry === undefined) replay.delete(key)
              else replay.set(key, entry)
            }
          }
          const expected = [...model.entries.values()].sort((a, b) => (a.key < b.key ? -1 : 1))
          const { entries, revision } = await store.list('')
          expect({ entries, revision }).toEqual({ entries: expected, revision: model.revision })
          expect([...replay.values()].sort((a, b) => (a.key < b.key ? -1 : 1))).toEqual(expected)
          const reopened = await bench.restart?.()
          if (reopened !== undefined)
            expect(await reopened.list('')).toMatchObject({ entries, revision })
        }),
        { numRuns: 60 },
      )
    })
  })
}
