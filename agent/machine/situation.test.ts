import { expect, test } from 'vitest'
import type { Placement } from '../../cluster/fleet/placement.ts'
import { testMachine, testRecord, testTracked } from '../../test/support/machine.ts'
import { longestRestartMs } from './record.ts'
import { guestStateOf, situationOf } from './situation.ts'

const now = {
  process: undefined,
  nowMs: 1000,
  monotonicMs: 0,
  diskHasRoom: true,
  standing: 'ours',
  hostDrains: false,
  placement: undefined,
  leaseRevision: 7,
} as const
const started = (value: string) => ({ annotations: { 'macfleet.dev/started-at': value } })

test('a deletion comes before every other wish', () => {
  const machine = testMachine({}, { deletionTimestamp: 'now', deletionGracePeriodSeconds: 5 })
  const situation = situationOf(machine, testTracked('/x', testRecord()), now)
  expect(situation).toMatchObject({ wanted: 'Gone', mayCutPower: false })
})

test.each([undefined, 0])('a deletion with a grace of %s may cut the power', seconds => {
  const machine = testMachine({}, { deletionTimestamp: 'now', deletionGracePeriodSeconds: seconds })
  expect(situationOf(machine, testTracked('/x', testRecord()), now).mayCutPower).toBe(true)
})

test('a start is asked for until it was acted upon', () => {
  const machine = testMachine({}, started('2'))
  const asked = (actedStart?: string) =>
    situationOf(machine, testTracked('/x', testRecord({ actedStart })), now).startAsked
  expect([asked(undefined), asked('1'), asked('2')]).toEqual([true, true, false])
  expect(situationOf(machine, testTracked('/x', undefined), now).startAsked).toBe(false)
})

test('a wait that is longer than the longest is none: the clock was set back', () => {
  const wait = (notBeforeMs?: number) =>
    situationOf(testMachine(), testTracked('/x', testRecord({ notBeforeMs })), now).waitMs
  expect(wait(undefined)).toBe(0)
  expect(wait(500)).toBe(0)
  expect(wait(3000)).toBe(2000)
  expect(wait(1000 + longestRestartMs)).toBe(longestRestartMs)
  expect(wait(1e12)).toBe(0)
})

test('a guest that its disk blocks is not resumed again at once', () => {
  const tracked = testTracked('/x', testRecord())
  expect(situationOf(testMachine(), tracked, now).blockedWaitMs).toBe(0)
  tracked.resumeNotBeforeMs = 2000
  expect(situationOf(testMachine(), tracked, now).blockedWaitMs).toBe(2000)
})

test.each([
  ['running', 'running'],
  ['suspended', 'running'],
  ['paused', 'paused'],
  ['prelaunch', 'paused'],
  ['io-error', 'blocked'],
  ['shutdown', 'ended'],
  ['guest-panicked', 'ended'],
  ['internal-error', 'ended'],
  [undefined, 'unknown'],
] as const)('QEMU that says %s has a guest that is %s', (runState, guest) => {
  expect(guestStateOf(runState)).toBe(guest)
})

test('a deletion with less grace than the shutdown under way begins its own', () => {
  const tracked = testTracked('/x', testRecord())
  tracked.stopping = new AbortController()
  tracked.stopByMs = 30_000
  const stopping = (metadata: object) =>
    situationOf(testMachine({}, metadata), tracked, now).stopping
  expect(stopping({})).toBe(true)
  const deleting = { deletionTimestamp: 'now' }
  expect(stopping({ ...deleting, deletionGracePeriodSeconds: 60 })).toBe(true)
  expect(stopping({ ...deleting, deletionGracePeriodSeconds: 5 })).toBe(false)
  tracked.stopByMs = 5000
  expect(stopping({ ...deleting, deletionGracePeriodSeconds: 5 })).toBe(true)
})

test('a host that is drained gives away only what may be replaced', () => {
  const drains = (onHostLoss: 'Wait' | 'Replace') =>
    situationOf(testMachine({ onHostLoss }), testTracked('/x', testRecord()), {
      ...now,
      hostDrains: true,
    }).draining
  expect([drains('Wait'), drains('Replace')]).toEqual([false, true])
})

test('a claim is old when the policy or the lease is another', () => {
  const base: Placement = {
    ...{ uid: 'u', namespace: 'default', name: 'vm', epoch: 1, host: 'mac-1', machine: 'linux' },
    request: { cpu: 1, memoryBytes: 1, diskBytes: 0, machines: 1 },
    changedAt: '2026-01-01T00:00:00Z',
    ...{ state: 'Claimed', onHostLoss: 'Replace', leaseRevision: 7 },
  }
  const machine = testMachine({ onHostLoss: 'Replace' })
  const claimed = (given: Partial<Placement>, leaseRevision: number | undefined = 7) => {
    const around = { ...now, placement: { ...base, ...given }, leaseRevision }
    return situationOf(machine, testTracked('/x', testRecord()), around).claimIsOld
  }
  expect(claimed({})).toBe(false)
  expect(claimed({ onHostLoss: 'Wait' })).toBe(true)
  expect(claimed({ leaseRevision: 6 })).toBe(true)
  expect(claimed({ state: 'Resting', leaseRevision: 6 })).toBe(false)
  // Adopted from before there were placements: only a claim lets the guardian fence it.
  expect(claimed({ state: 'Assigned', leaseRevision: undefined })).toBe(true)
  // Without a lease nothing can be claimed.
  const around = { ...now, placement: { ...base, leaseRevision: 6 }, leaseRevision: undefined }
  expect(situationOf(machine, testTracked('/x', testRecord()), around).claimIsOld).toBe(false)
})
