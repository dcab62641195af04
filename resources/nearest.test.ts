import { expect, test } from 'vitest'
import { editDistance, nearest } from './nearest.ts'

test('counts letters added, removed, changed and swapped', () => {
  expect(editDistance('cpu', 'cpu')).toBe(0)
  expect(editDistance('cpuu', 'cpu')).toBe(1)
  expect(editDistance('memroy', 'memory')).toBe(1)
  expect(editDistance('', 'abc')).toBe(3)
})

test('names what was meant, and nothing when nothing is near', () => {
  const fields = ['cpu', 'memory', 'powerState', 'restartPolicy']
  expect(nearest('memroy', fields)).toBe('memory')
  expect(nearest('powerstate', fields)).toBe('powerState')
  expect(nearest('colour', fields)).toBeUndefined()
  expect(nearest('x'.repeat(10_000), fields)).toBeUndefined()
})
