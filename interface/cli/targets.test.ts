import { expect, test } from 'vitest'
import { hostName, imageName, virtualMachineName } from './kinds.ts'
import { machineNameOf, readTargets } from './targets.ts'

const read = (...words: string[]) => readTargets(words, 'macfleet get')

test('a kind, with names and without', () => {
  expect(read('vms')).toEqual([{ kind: virtualMachineName, names: [] }])
  expect(read('vm', 'a', 'b')).toEqual([{ kind: virtualMachineName, names: ['a', 'b'] }])
  expect(read('vms,hosts').map(({ kind }) => kind)).toEqual([virtualMachineName, hostName])
})

test('KIND/NAME, of several kinds', () => {
  expect(read('vm/a', 'image/i', 'vm/b')).toEqual([
    { kind: virtualMachineName, names: ['a', 'b'] },
    { kind: imageName, names: ['i'] },
  ])
})

test.each([[], ['vm/a', 'b'], ['vm/'], ['vm/a/b'], ['nope'], ['vms,hosts', 'a']])(
  '%j is refused as wrong usage',
  (...words) => {
    expect(() => read(...words.flat())).toThrow('See `macfleet get --help`')
  },
)

test('a virtual machine by its name or as vm/NAME', () => {
  expect(machineNameOf('web', 'macfleet ssh')).toBe('web')
  expect(machineNameOf('vm/web', 'macfleet ssh')).toBe('web')
  expect(() => machineNameOf('image/web', 'macfleet ssh')).toThrow('names no virtual machine')
})
