import fc from 'fast-check'
import { expect, test } from 'vitest'
import { defaultLimits } from '../../base/limits.ts'
import { defaultTiming } from '../../cluster/fleet/timing.ts'
import { checkRequest, isProcessName, parseEnvelope } from './protocol.ts'

const start = {
  name: 'vm-1',
  command: 'qemu',
  arguments: ['-S', ''],
  environment: { A: 'b' },
  stderrPath: '/a/stderr',
  exitPath: '/a/exit.json',
  logs: [{ path: '/a/console.log', limitBytes: 4096 }],
  oomScoreAdjust: 500,
}

test('takes a request that is whole', () => {
  const envelope = parseEnvelope(JSON.stringify({ id: 3, method: 'start', parameters: start }))
  expect(envelope && checkRequest(envelope, defaultLimits)).toEqual({
    ...{ id: 3, method: 'start' },
    parameters: { ...start, workingFolder: undefined },
  })
})

test.each([
  ['name', { name: '' }],
  ['name', { name: '.hidden' }],
  ['name', { name: 'a/b' }],
  ['command', { command: 5 }],
  ['arguments', { arguments: ['a\0b'] }],
  ['arguments', { arguments: 'all' }],
  ['workingFolder', { workingFolder: 'here' }],
  ['environment', { environment: ['A=b'] }],
  ['environment.A', { environment: { A: 1 } }],
  ['stderrPath', { stderrPath: undefined }],
  ['logs', { logs: Array(20).fill(start.logs[0]) }],
  ['limitBytes', { logs: [{ path: '/a', limitBytes: 0 }] }],
  ['oomScoreAdjust', { oomScoreAdjust: 2000 }],
])('refuses a wrong %s by name', (field, change) => {
  const envelope = { id: 1, method: 'start', parameters: { ...start, ...change } }
  expect(() => checkRequest(envelope, defaultLimits)).toThrow(
    expect.objectContaining({ code: 'guardianRefused', message: expect.stringContaining(field) }),
  )
})

test('signals exact processes only', () => {
  const parameters = { name: 'vm-1', signal: 'SIGKILL', identity: { pid: 7, startTicks: 9 } }
  const check = (change: object) =>
    checkRequest(
      { id: 1, method: 'signal', parameters: { ...parameters, ...change } },
      defaultLimits,
    )
  expect(check({}).parameters).toEqual(parameters)
  expect(() => check({ signal: 'SIGNONE' })).toThrow('no signal SIGNONE')
  expect(() => check({ signal: 'toString' })).toThrow('no signal')
  // 0 and -1 would be our group and everybody, 1 is init.
  for (const pid of [0, -1, 1, 1.5]) {
    expect(() => check({ identity: { pid, startTicks: 9 } })).toThrow('pid')
  }
})

const lease = {
  leaseId: '7587870000000000001',
  leaseRevision: 9,
  key: 'm/fleet/leases/a',
  endpoints: ['https://192.0.2.1:7482', 'https://[2001:db8::1]:7482'],
  tls: { authorityPath: '/a/ca', certificatePath: '/a/certificate', keyPath: '/a/key' },
  timing: defaultTiming,
}

test('takes a lease that is whole, and no spans that let a guest run twice', () => {
  const check = (change: object) =>
    checkRequest({ id: 1, method: 'lease', parameters: { ...lease, ...change } }, defaultLimits)
  expect(check({}).parameters).toEqual(lease)
  expect(check({ grantedMs: 5 }).parameters).toEqual({ ...lease, grantedMs: 5 })
  for (const [field, change] of [
    ['leaseId', { leaseId: '-1' }],
    ['leaseRevision', { leaseRevision: 0 }],
    ['key', { key: 'k'.repeat(2_000) }],
    ['endpoints', { endpoints: [] }],
    ['endpoints', { endpoints: ['http://192.0.2.1:7482'] }],
    ['endpoints', { endpoints: ['https://192.0.2.1:7482/path'] }],
    ['endpoints', { endpoints: Array(4).fill(lease.endpoints[0]) }],
    ['tls', { tls: { ...lease.tls, keyPath: 'key' } }],
    ['timing.killMs', { timing: { ...defaultTiming, killMs: -1 } }],
    ['until replaced', { timing: { ...defaultTiming, graceMs: 1_000 } }],
    ['grantedMs', { grantedMs: -1 }],
  ] as const) {
    expect(() => check(change)).toThrow(field)
  }
  const claim = (parameters: object) =>
    checkRequest(
      { id: 1, method: 'claim', parameters: { name: 'a', ...parameters } },
      defaultLimits,
    )
  const given = { leaseRevision: 9, fenced: true }
  expect(claim({ claim: given }).parameters).toEqual({ name: 'a', claim: given, ahead: false })
  expect(() => claim({})).toThrow('claim')
  expect(() => claim({ claim: { ...given, fenced: 1 } })).toThrow('fenced')
})

test('whatever a client sends is refused or understood', () => {
  const methods = ['hello', 'start', 'list', 'signal', 'forget', 'stop', 'other', 'lease', 'claim']
  const parameters = fc.oneof(
    fc.dictionary(
      fc.constantFrom(...Object.keys({ ...start, ...lease }), 'identity', 'signal', 'claim'),
      fc.jsonValue(),
    ),
    fc.jsonValue(),
  )
  const line = fc.oneof(
    fc.string(),
    fc.json(),
    fc
      .record({ id: fc.jsonValue(), method: fc.constantFrom(...methods), parameters })
      .map(value => JSON.stringify(value)),
  )
  fc.assert(
    fc.property(line, text => {
      const envelope = parseEnvelope(text)
      if (envelope === undefined) return
      try {
        expect(checkRequest(envelope, defaultLimits).id).toBe(envelope.id)
      } catch (error) {
        expect(error).toMatchObject({ code: 'guardianRefused' })
      }
    }),
  )
})

test('names are safe as names of files', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 120 }), name => {
      if (isProcessName(name)) expect(name).toMatch(/^[\w][\w.-]*$/)
    }),
  )
  expect(isProcessName('a'.repeat(100))).toBe(true)
  expect(isProcessName('a'.repeat(101))).toBe(false)
})
