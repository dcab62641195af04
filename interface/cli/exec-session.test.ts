import { expect, test } from 'vitest'
import { frame, readExitCode } from './exec-session.ts'

const bytes = (value: unknown) => Buffer.from(JSON.stringify(value))

test('a message begins with its channel', () => {
  expect([...frame('stdin', 'ab')]).toEqual([0, 97, 98])
  expect([...frame('resize', Buffer.from('x'))]).toEqual([4, 120])
})

test('the last message tells the exit code, or why there is none', () => {
  expect(readExitCode(bytes({ status: 'Success' }))).toBe(0)
  const causes = [{ reason: 'Other' }, { reason: 'ExitCode', message: '7' }]
  expect(readExitCode(bytes({ status: 'Failure', details: { causes } }))).toBe(7)
  const broken = {
    kind: 'Status',
    status: 'Failure',
    reason: 'InternalError',
    message: 'agent gone',
  }
  expect(() => readExitCode(bytes(broken))).toThrow('agent gone')
  expect(() => readExitCode(bytes(3))).toThrow('no status')
})
