import { describe, expect, test } from 'vitest'
import { kinds } from '../../resources/kinds.ts'
import { kindNamed, kindNames, kindOfObject, qualifiedName, virtualMachineName } from './kinds.ts'

describe('the names of kinds', () => {
  test('are those of the vocabulary', () => {
    const known = kinds.map(
      ({ kind, group, version, plural, singular, shortNames, namespaced }) => ({
        kind,
        group,
        version,
        plural,
        singular,
        shortNames,
        namespaced,
      }),
    )
    expect(kindNames).toEqual(known)
  })

  test.each(['vm', 'vms', 'VirtualMachines', 'virtualmachine.macfleet.dev'])('%s is one', word => {
    expect(kindNamed(word)).toBe(virtualMachineName)
  })

  test('a slip of the pen is answered with what was meant', () => {
    expect(() => kindNamed('imagse')).toThrow('there is no kind imagse (did you mean image?)')
    expect(() => kindNamed('xyzzy')).toThrow('known are namespaces, events')
  })

  test('are found by apiVersion and kind, and name objects', () => {
    expect(kindOfObject('macfleet.dev/v1', 'VirtualMachine')).toBe(virtualMachineName)
    expect(kindOfObject('v1', 'VirtualMachine')).toBeUndefined()
    expect(qualifiedName(virtualMachineName, 'web')).toBe('virtualmachine.macfleet.dev/web')
    expect(qualifiedName(kindNamed('ns'), 'lab')).toBe('namespace/lab')
  })
})
