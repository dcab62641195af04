import { expect, test } from 'vitest'
import { formatAge, parseDurationMs } from './duration.ts'

test('reads durations', () => {
  expect(parseDurationMs('90s')).toBe(90_000)
  expect(parseDurationMs('2h30m')).toBe(9_000_000)
  expect(parseDurationMs('1d')).toBe(86_400_000)
  for (const text of ['', 'soon', '5', '-5s', '5 s']) expect(parseDurationMs(text)).toBeUndefined()
})

test('prints ages as kubectl does', () => {
  const second = 1000
  expect(formatAge(-5)).toBe('0s')
  expect(formatAge(119 * second)).toBe('119s')
  expect(formatAge(200 * second)).toBe('3m20s')
  expect(formatAge(3 * 3600 * second)).toBe('3h')
  expect(formatAge(12 * 86_400 * second)).toBe('12d')
})
