import { expect, test } from 'vitest'
import {
  type Assignment,
  assigned,
  claimed,
  isAnchored,
  moved,
  placementStep,
  takesRoom,
  wantsPlace,
} from './placement.ts'

const at = '2026-01-01T00:00:00Z'
const given: Assignment = {
  ...{ uid: 'u', namespace: 'default', name: 'vm', host: 'mac-1', machine: 'linux', at },
  request: { cpu: 1, memoryBytes: 1, diskBytes: 0, machines: 1 },
  onHostLoss: 'Replace',
}
const claim = { leaseRevision: 7, onHostLoss: 'Replace', at } as const

test('a disk belongs to the epoch in which it came to be, and goes with its host', () => {
  const first = claimed(assigned(undefined, given), claim)
  expect(first).toMatchObject({ epoch: 1, diskEpoch: 1, leaseRevision: 7 })
  const again = assigned(moved(first, 'Waking', { at }), given)
  expect(again).toMatchObject({ epoch: 2, diskEpoch: 1 })
  expect(() => assigned(moved(first, 'Waking', { at }), { ...given, host: 'mac-2' })).toThrow()
  const lost = moved(again, 'Lost', { at, reason: 'HostLost', message: 'm' })
  expect(isAnchored(lost)).toBe(false)
  const elsewhere = assigned(lost, { ...given, host: 'mac-2' })
  expect(elsewhere).toMatchObject({ epoch: 3, host: 'mac-2' })
  expect(elsewhere.reason).toBeUndefined()
})

test('only what was given to a host and not given back takes room there', () => {
  const one = assigned(undefined, given)
  expect(takesRoom(one)).toBe(true)
  expect(takesRoom(claimed(one, claim))).toBe(true)
  for (const state of ['Refused', 'Resting', 'Waking', 'Lost', 'Gone'] as const) {
    expect(takesRoom(moved(one, state, { at })), state).toBe(false)
  }
})

test('the leader looks for a place for what was refused, lost, or wants to wake', () => {
  const one = assigned(undefined, given)
  const wanting = (['Refused', 'Resting', 'Waking', 'Lost', 'Gone'] as const).filter(state =>
    wantsPlace(moved(one, state, { at })),
  )
  expect(wanting).toEqual(['Refused', 'Waking', 'Lost'])
})

test('a step that may not follow is a mistake of ours', () => {
  const one = assigned(undefined, given)
  const entry = (value: object) =>
    ({ key: 'k', value: value as never, createRevision: 2, modRevision: 3 }) as const
  expect(placementStep(undefined, one).compare).toEqual([
    { key: 'fleet/placements/u', modRevision: 0 },
  ])
  expect(placementStep(entry(one), claimed(one, claim)).compare[0]).toMatchObject({
    modRevision: 3,
  })
  expect(() => placementStep(undefined, claimed(one, claim))).toThrow('no placement goes')
  const gone = moved(one, 'Gone', { at })
  expect(() => placementStep(entry(gone), assigned(gone, given))).toThrow('no placement goes')
})
