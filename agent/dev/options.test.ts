import { expect, test } from 'vitest'
import { parseDevOptions } from './options.ts'

test('has defaults, and takes counts that can be', () => {
  const flags = { separate: false, detach: false, stop: false }
  expect(parseDevOptions([])).toEqual({ hosts: 3, racks: 1, ...flags })
  expect(parseDevOptions(['--hosts', '6', '--racks', '2', '--detach'])).toEqual({
    ...flags,
    hosts: 6,
    racks: 2,
    detach: true,
  })
})

test.each([
  [['--hosts', '0'], '--hosts takes a number from 1 to 200, not 0'],
  [['--hosts', '1e3'], '--hosts takes a number from 1 to 200, not 1e3'],
  [['--hosts', '2', '--racks', '3'], '--racks takes a number from 1 to 2, not 3'],
  [['--host', '2'], "Unknown option '--host'"],
])('refuses %j', (args, message) => {
  expect(() => parseDevOptions(args)).toThrow(message)
})
