import { expect, test } from 'vitest'
import type { Placement, PlacementState } from '../../cluster/fleet/placement.ts'
import { standingOf } from './standing.ts'

const placed = (state: PlacementState, given: Partial<Placement> = {}): Placement => ({
  uid: 'u',
  namespace: 'default',
  name: 'vm',
  epoch: 3,
  host: 'mac-1',
  state,
  request: { cpu: 1, memoryBytes: 1, diskBytes: 0, machines: 1 },
  machine: 'linux',
  onHostLoss: 'Replace',
  changedAt: '2026-01-01T00:00:00Z',
  ...given,
})
const here = (placement: Placement | undefined, record?: { diskEpoch?: number }) =>
  standingOf(placement, record, 'mac-1')

test.each([
  ['Assigned', 'ours'],
  ['Claimed', 'ours'],
  ['Resting', 'resting'],
  ['Waking', 'waking'],
  ['Refused', 'elsewhere'],
  ['Lost', 'elsewhere'],
  ['Gone', 'elsewhere'],
] as const)('%s by this host is %s', (state, standing) => {
  expect(here(placed(state))).toBe(standing)
})

test('nothing is concluded from no placement', () => {
  expect(here(undefined, { diskEpoch: 1 })).toBe('unknown')
})

test("another host's machine has nothing to do here", () => {
  expect(here(placed('Claimed', { host: 'mac-2' }), { diskEpoch: 1 })).toBe('elsewhere')
})

test('a disk of an earlier epoch goes before the machine starts anew', () => {
  expect(here(placed('Assigned'), { diskEpoch: 1 })).toBe('elsewhere')
  expect(here(placed('Assigned', { diskEpoch: 1 }), { diskEpoch: 1 })).toBe('ours')
  expect(here(placed('Claimed', { diskEpoch: 2 }), { diskEpoch: 1 })).toBe('elsewhere')
})

test('a disk from before there were placements is taken as it is', () => {
  expect(here(placed('Assigned'), {})).toBe('ours')
})

test('a host that is alone and had another name before keeps what it has', () => {
  const before = placed('Claimed', { host: 'old-name', diskEpoch: 1 })
  expect(standingOf(before, { diskEpoch: 1 }, 'mac-1', false)).toBe('unknown')
})
