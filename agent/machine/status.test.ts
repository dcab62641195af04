import { expect, test } from 'vitest'
import { findCondition } from '../../resources/condition.ts'
import { testMachine, testRecord } from '../../test/support/machine.ts'
import { madeFrom } from './made-from.ts'
import { statusOf, type View } from './status.ts'

const time = '2026-01-01T00:00:00Z'
const off: View = {
  host: 'mac-1',
  alive: false,
  runState: undefined,
  stopping: false,
  obstacle: undefined,
  willStart: false,
  accelerator: 'kvm',
  address: undefined,
  answered: false,
  agentConnected: false,
}
const on: View = { ...off, alive: true, runState: 'running', answered: true }
const ready = (status: ReturnType<typeof statusOf>) => findCondition(status.conditions, 'Ready')
const exit = (reason: 'GuestPoweredOff' | 'QemuDied', intended = false) =>
  testRecord({ lastExit: { reason, intended, message: 'It ended', time } })

test.each([
  ['never started', testMachine(), undefined, { ...off, willStart: true }, 'Pending'],
  ['stopped', testMachine({ powerState: 'Stopped' }), undefined, off, 'Stopped'],
  [
    'fetching its image',
    testMachine(),
    undefined,
    { ...off, willStart: true, pulling: true },
    'Pulling',
  ],
  ['starting', testMachine(), testRecord(), { ...on, runState: undefined }, 'Starting'],
  ['running', testMachine(), testRecord(), on, 'Running'],
  [
    'suspended',
    testMachine({ powerState: 'Suspended' }),
    testRecord(),
    { ...on, runState: 'paused' },
    'Suspended',
  ],
  ['powered off', testMachine(), exit('GuestPoweredOff'), off, 'Stopped'],
  ['failed', testMachine(), exit('QemuDied'), off, 'Failed'],
  [
    'failed, to start again',
    testMachine(),
    exit('QemuDied'),
    { ...off, willStart: true },
    'Starting',
  ],
] as const)('a machine that is %s', (_, machine, record, view, phase) => {
  expect(statusOf(machine, record, view, time).phase).toBe(phase)
})

test('a machine that answers is ready, until it is being stopped', () => {
  expect(ready(statusOf(testMachine(), testRecord(), on, time))?.status).toBe('True')
  const stopping = statusOf(testMachine(), testRecord(), { ...on, stopping: true }, time)
  expect(ready(stopping)).toMatchObject({ status: 'False', reason: 'Stopping' })
})

test('a machine says where its image is while it runs', () => {
  const local = (view: View) =>
    findCondition(statusOf(testMachine(), testRecord(), view, time).conditions, 'ImageLocal')
  expect(local(on)).toMatchObject({ status: 'True' })
  expect(local(off)).toBeUndefined()
  const arrival = { percent: 45, stalled: undefined }
  expect(local({ ...on, arrival })).toMatchObject({
    status: 'False',
    reason: 'Filling',
    message: 'The image is on its way: 45 % of it are here',
  })
  const stalled = { ...on, arrival: { ...arrival, stalled: 'no source answers' } }
  expect(local(stalled)).toMatchObject({ status: 'False', reason: 'ImageStalled' })
  const paused = { ...stalled, runState: 'io-error' } as const
  const status = statusOf(testMachine(), testRecord(), paused, time)
  expect(ready(status)).toMatchObject({ status: 'False', reason: 'ImageStalled' })
  expect(ready(status)?.message).toContain('no source answers')
  const full = statusOf(testMachine(), testRecord(), { ...paused, diskHasRoom: false }, time)
  expect(ready(full)).toMatchObject({ reason: 'DiskFull' })
})

test('a machine that was never placed has no host yet', () => {
  const obstacle = { reason: 'HostUnfit', message: 'It is cordoned' }
  const status = statusOf(testMachine(), undefined, { ...off, willStart: true, obstacle }, time)
  expect(status.host).toBeUndefined()
  expect(ready(status)).toMatchObject(obstacle)
  expect(statusOf(testMachine(), testRecord(), on, time).host).toBe('mac-1')
})

test('a start that is owed does not count as a restart', () => {
  const owed = testRecord({ runs: 2, startBegun: true })
  expect(statusOf(testMachine(), owed, { ...off, willStart: true }, time).restarts).toBe(0)
  expect(statusOf(testMachine(), owed, on, time).restarts).toBe(1)
})

test('what was changed since the start is told while it runs, and no longer', () => {
  const record = testRecord({ madeFrom: madeFrom(testMachine().spec) })
  const machine = testMachine({ memory: '2Gi', sshKeys: ['ssh-ed25519 A'] })
  const told = statusOf(machine, record, on, time)
  expect(findCondition(told.conditions, 'RestartRequired')).toMatchObject({
    status: 'True',
    message: expect.stringMatching(/: memory, sshKeys$/),
  })
  const later = '2026-01-01T00:00:09Z'
  const again = statusOf({ ...machine, status: told }, record, on, later)
  expect(again).toEqual(told)
  const back = statusOf({ ...testMachine(), status: told }, record, on, later)
  expect(findCondition(back.conditions, 'RestartRequired')).toBeUndefined()
  const stopped = statusOf({ ...machine, status: told }, record, off, later)
  expect(findCondition(stopped.conditions, 'RestartRequired')).toBeUndefined()
})

test('a quantity that is written in another way is no change', () => {
  const record = testRecord({ madeFrom: madeFrom(testMachine({ memory: '1Gi' }).spec) })
  const { conditions } = statusOf(testMachine({ memory: '1024Mi' }), record, on, time)
  expect(findCondition(conditions, 'RestartRequired')).toBeUndefined()
})

test('ports and address are told only while it runs', () => {
  const forward = {
    protocol: 'TCP',
    guestPort: 22,
    hostPort: 20_022,
    hostAddress: '127.0.0.1',
  } as const
  const record = testRecord({ forwards: [forward] })
  const machine = testMachine({ ports: [{ name: 'ssh', guestPort: 22, protocol: 'TCP' }] })
  const view = { ...on, address: '10.0.2.15' }
  expect(statusOf(machine, record, view, time)).toMatchObject({
    address: '10.0.2.15',
    ports: [{ name: 'ssh', ...forward }],
  })
  expect(statusOf(machine, record, { ...view, alive: false }, time)).not.toHaveProperty('ports')
})
