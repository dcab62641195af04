import { describe, expect, test } from 'vitest'
import {
  type Figure,
  figureOf,
  formatJson,
  formatTable,
  isMet,
  measureInTurns,
  quantile,
  ratioOf,
} from './harness.ts'

const signal = new AbortController().signal

describe('measuring in turns', () => {
  test('forwards and backwards, each first in turn; the first round is thrown away', async () => {
    const order: string[] = []
    let count = 0
    const contender = (name: string) => async () => {
      order.push(name)
      return count++
    }
    const contenders = { a: contender('a'), b: contender('b'), c: contender('c') }
    const init = { rounds: 3, patienceMs: 0 }
    const results = await measureInTurns(contenders, init, { signal, say: () => {} })
    expect(order.join('')).toBe('abccbabcaacb')
    expect(results).toEqual({ a: [5, 8, 9], b: [4, 6, 11], c: [3, 7, 10] })
  })

  test('ends when it is aborted', async () => {
    const context = { signal: AbortSignal.abort(new Error('enough')), say: () => {} }
    const run = measureInTurns({ a: async () => 1 }, { rounds: 2, patienceMs: 0 }, context)
    await expect(run).rejects.toThrow('enough')
  })
})

test('quantiles lie between their neighbours', () => {
  expect(quantile([4, 1, 3, 2], 0.5)).toBe(2.5)
  expect(quantile([1, 2, 3, 4, 5], 0.9)).toBeCloseTo(4.6)
  expect(quantile([7], 0.1)).toBe(7)
})

test('a ratio is the median of what the rounds say, not the ratio of the medians', () => {
  // The machine was slow in the second round, for both alike.
  const { value, runs, unit } = ratioOf('', [11, 110, 12], [10, 100, 10])
  expect(value).toBeCloseTo(1.1)
  expect([runs, unit]).toEqual([3, 'x'])
})

test.each([
  ['atMost', 1.1, true],
  ['below', 1.1, false],
  ['atLeast', 1.1, true],
  ['atMost', 1, false],
  ['below', 2, true],
  ['atLeast', 2, false],
] as const)('%s %d is met: %s', (bound, target, met) => {
  expect(isMet(figureOf('', 'x', [1.1], { value: target, bound }))).toBe(met)
})

const figures: Record<string, Figure> = {
  start: figureOf('a start', 'ms', [100, 200, 300], { value: 150, bound: 'atMost' }),
  floor: figureOf('nothing', 'ms', [1.2345]),
}

test('the table says what was missed', () => {
  expect(formatTable(figures).split('\n')).toEqual([
    'METRIC  VALUE    TARGET     MET  RUNS  SPREAD  LEAST  WHAT',
    'start   200 ms   <= 150 ms  NO   3     80 %    100    a start',
    'floor   1.23 ms                  1                    nothing',
  ])
})

test('the JSON has value, unit, target, runs and spread for every metric', () => {
  expect(JSON.parse(formatJson(figures))).toEqual({
    start: {
      ...{ what: 'a start', value: 200, unit: 'ms', runs: 3, spread: 0.8, least: 100 },
      ...{ target: 150, bound: 'atMost', met: false },
    },
    floor: {
      ...{ what: 'nothing', value: 1.2345, unit: 'ms', runs: 1, spread: 0, least: 1.2345 },
      target: null,
    },
  })
})
