import { describe, expect, test } from 'vitest'
import { isFailure } from '../base/errors.ts'
import { chooseAccelerator, cpuVendor, readAcceleratorFacts } from './accelerator.ts'

const intel = 'vendor_id\t: GenuineIntel\nflags\t\t: fpu vme vmx sse\n'
const amd = 'vendor_id\t: AuthenticAMD\nflags\t\t: fpu svm\n'
const inside = 'vendor_id\t: GenuineIntel\nflags\t\t: fpu svmx vmxnet\nvmx flags\t: none\n'
const opens = { deviceError: undefined, deviceGroupId: 105 }
const closed = { deviceError: 'EACCES', deviceGroupId: undefined }

describe('the accelerator', () => {
  test('is KVM where the device opens and the CPU can do it', () => {
    expect(chooseAccelerator('auto', { ...opens, cpuInfo: intel }).accelerator).toBe('kvm')
    expect(chooseAccelerator('kvm', { ...opens, cpuInfo: amd }).accelerator).toBe('kvm')
    expect(chooseAccelerator('tcg', { ...opens, cpuInfo: amd }).accelerator).toBe('tcg')
  })

  test('is TCG elsewhere, and says why', () => {
    expect(chooseAccelerator('auto', { ...opens, cpuInfo: inside })).toEqual({
      accelerator: 'tcg',
      reason:
        'guests are emulated (TCG), slowly: the CPU shows neither vmx nor svm in /proc/cpuinfo',
    })
    const decision = chooseAccelerator('auto', { ...closed, cpuInfo: intel })
    expect(decision.reason).toContain('/dev/kvm does not open (EACCES)')
  })

  test('is an error where KVM is demanded and missing', () => {
    let thrown: unknown
    try {
      chooseAccelerator('kvm', { ...opens, cpuInfo: inside })
    } catch (error) {
      thrown = error
    }
    expect(isFailure(thrown, 'kvmUnusable')).toBe(true)
  })

  test('can be told on this host', async () => {
    const facts = await readAcceleratorFacts()
    expect(facts.deviceError === undefined).toBe(facts.deviceGroupId !== undefined)
    expect(['kvm', 'tcg']).toContain(chooseAccelerator('auto', facts).accelerator)
  })

  test('comes with the vendor of the CPU', () => {
    expect(cpuVendor(amd)).toBe('AuthenticAMD')
    expect(cpuVendor('processor: 0')).toBeUndefined()
  })
})
