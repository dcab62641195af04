import { expect, test } from 'vitest'
import { checkTiming, defaultTiming } from './timing.ts'

test('the spans in service hold together', () => {
  expect(() => checkTiming(defaultTiming)).not.toThrow()
})

test.each([
  ['the leader acts before the guests are dead', { graceMs: 1_000 }],
  ['a guest takes long to kill', { killMs: 5_000 }],
  ['the clocks drift far', { clockDrift: 0.2 }],
  ['an election ends guests', { electionMostMs: 6_000 }],
  ['one endpoint takes too long', { renewalTimeoutMs: 3_000 }],
  ['a single lost heartbeat is silence', { daemonSilenceMs: 1_500 }],
  ['a single lost renewal ends a term', { leaderLeaseTtlMs: 900 }],
])('not when %s', (_, wrong) => {
  expect(() => checkTiming({ ...defaultTiming, ...wrong })).toThrow()
})
