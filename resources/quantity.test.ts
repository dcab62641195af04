import fc from 'fast-check'
import { expect, test } from 'vitest'
import { approximateBytes, formatBytes, parseQuantity } from './quantity.ts'

test.each([
  ['512Mi', 512 * 2 ** 20],
  ['2Gi', 2 * 2 ** 30],
  ['1.5Gi', 1.5 * 2 ** 30],
  ['0.5', 0.5],
  ['.5', 0.5],
  ['500m', 0.5],
  ['100u', 0.0001],
  ['1k', 1000],
  ['1e3', 1000],
  ['1E3', 1000],
  ['1E', 1e18],
  ['12e-1', 1.2],
  [2, 2],
])('%s is %d', (text, value) => {
  expect(parseQuantity(text)).toBe(value)
})

test.each(['', 'x', '1 Gi', '1gi', '1Kib', '--1', '1.2.3', '1e', '0x10', 'Infinity', Number.NaN])(
  '%s is no quantity',
  text => {
    expect(parseQuantity(text)).toBeUndefined()
  },
)

test('what formatBytes writes, parseQuantity reads back', () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), bytes => {
      expect(parseQuantity(formatBytes(bytes))).toBe(bytes)
    }),
  )
})

test('cells are short', () => {
  expect(approximateBytes(1536 * 2 ** 20)).toBe('1.5Gi')
  expect(approximateBytes(0)).toBe('0')
})
