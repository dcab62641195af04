import { expect, test } from 'vitest'
import { failure } from '../../base/errors.ts'
import { exitCodeOf } from './exit-code.ts'
import { statusError } from './status-error.ts'

const status = (reason: string, code: number) =>
  statusError(code, JSON.stringify({ kind: 'Status', reason, message: 'm', code }))

test.each([
  [failure('usageWrong', { detail: 'x', command: 'macfleet' }), 2],
  [failure('timeout', { what: 'x', timeoutMs: 1 }), 3],
  [status('Timeout', 504), 3],
  [status('NotFound', 404), 4],
  [failure('contextNotFound', { name: 'x' }), 4],
  [status('Conflict', 409), 1],
  [new Error('a mistake of ours'), 1],
  [new DOMException('stopped', 'AbortError'), 130],
  ['no error at all', 1],
])('%s', (thrown, code) => {
  expect(exitCodeOf(thrown)).toBe(code)
})

test('an answer that is no Status is quoted, and not all of it', () => {
  expect(statusError(502, '').message).toBe('HTTP status 502')
  expect(statusError(502, '<html>bad gateway').message).toBe('HTTP status 502: <html>bad gateway')
  expect(statusError(500, 'x'.repeat(9999)).message.length).toBeLessThan(250)
})
