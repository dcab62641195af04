import { expect, test } from 'vitest'
import { testRecord } from '../../test/support/machine.ts'
import type { ExitRecord } from '../guardian/protocol.ts'
import { afterExit, judge } from './collect.ts'
import { longestRestartMs } from './record.ts'

const exited = (changes: Partial<ExitRecord> = {}): ExitRecord => ({
  reason: 'exited',
  code: 0,
  signal: null,
  endedAt: '2026-01-01T00:00:00.000Z',
  stderrTail: '',
  ...changes,
})

test.each([
  [
    'a QEMU that was killed',
    testRecord(),
    exited({ code: null, signal: 'SIGKILL' }),
    'QemuDied',
    false,
  ],
  ['a guest that we stopped', testRecord({ intent: 'stop' }), exited(), 'Killed', true],
  ['a guardian that died', testRecord(), exited({ reason: 'guardianLost' }), 'GuardianLost', false],
  [
    'a host without its lease',
    testRecord(),
    exited({ reason: 'fenced', code: null, signal: 'SIGKILL' }),
    'Fenced',
    false,
  ],
  [
    'a guardian that died while we stopped the guest',
    testRecord({ intent: 'stop' }),
    exited({ reason: 'guardianLost' }),
    'Killed',
    true,
  ],
  [
    'a guest that powered itself off',
    testRecord({
      intent: 'ended',
      guestEnding: { reason: 'GuestPoweredOff', message: 'The guest powered itself off' },
    }),
    exited(),
    'GuestPoweredOff',
    false,
  ],
  [
    'a guest that powered off because we asked',
    testRecord({
      intent: 'stop',
      guestEnding: { reason: 'GuestPoweredOff', message: 'The guest powered itself off' },
    }),
    exited(),
    'GuestPoweredOff',
    true,
  ],
] as const)('%s', (_, record, ended, reason, intended) => {
  expect(judge(record, ended, undefined)).toMatchObject({ reason, intended, time: ended.endedAt })
})

test('waits grow with failures in a row, up to a bound, and a run that held begins anew', () => {
  const failed = { reason: 'QemuDied', message: '', time: '', intended: false } as const
  let record = testRecord({ startedAtMs: 0 })
  const waits = Array.from({ length: 12 }, () => {
    record = afterExit(record, failed, 1000)
    return (record.notBeforeMs ?? 0) - 1000
  })
  expect(waits.slice(0, 4)).toEqual([1000, 2000, 4000, 8000])
  expect(waits.at(-1)).toBe(longestRestartMs)
  expect(afterExit(record, failed, 600_000)).toMatchObject({ failures: 1, notBeforeMs: 601_000 })
})

test('an end that was meant has no wait, and leaves nothing that was meant with the run', () => {
  const meant = { reason: 'Killed', message: '', time: '', intended: true } as const
  const record = testRecord({ failures: 4, notBeforeMs: 5, intent: 'stop', startBegun: true })
  const after = afterExit(record, meant, 1000)
  expect(after).toMatchObject({ failures: 0, lastExit: meant })
  for (const gone of ['notBeforeMs', 'intent', 'startBegun']) expect(after).not.toHaveProperty(gone)
})
