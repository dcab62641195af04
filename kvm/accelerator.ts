import { constants } from 'node:fs'
import { open, readFile } from 'node:fs/promises'
import { failure } from '../base/errors.ts'
import { messageOf } from '../base/log.ts'
import type { Accelerator } from './machine.ts'

/** What an operator may ask for. */
export type AcceleratorChoice = Accelerator | 'auto'

/** What the choice depends on. */
export interface AcceleratorFacts {
  /** Why /dev/kvm does not open for reading and writing; undefined when it does. */
  deviceError: string | undefined
  /** The group that may open /dev/kvm, which guests then need. */
  deviceGroupId: number | undefined
  /** The content of /proc/cpuinfo. */
  cpuInfo: string
}

/** The accelerator and why it is that one, as a sentence for the log and the host's status. */
export interface AcceleratorDecision {
  accelerator: Accelerator
  reason: string
}

/**
 * Chooses how guests are executed: KVM only if its device opens and the CPU says that it has
 * Intel's VMX or AMD's SVM, because inside some virtual machines the device opens and guests then
 * hang.
 * @throws kvmUnusable when `kvm` is demanded and can't be had
 */
export function chooseAccelerator(
  choice: AcceleratorChoice,
  facts: AcceleratorFacts,
): AcceleratorDecision {
  if (choice === 'tcg') return { accelerator: 'tcg', reason: 'the configuration asks for TCG' }
  const detail = whyNotKvm(facts)
  if (detail === undefined) {
    return { accelerator: 'kvm', reason: '/dev/kvm opens and the CPU has virtualization' }
  }
  if (choice === 'kvm') throw failure('kvmUnusable', { detail })
  return { accelerator: 'tcg', reason: `guests are emulated (TCG), slowly: ${detail}` }
}

function whyNotKvm(facts: AcceleratorFacts): string | undefined {
  if (facts.deviceError !== undefined) return `/dev/kvm does not open (${facts.deviceError})`
  const hasVirtualization = /^flags\s*:.*\b(vmx|svm)\b/m.test(facts.cpuInfo)
  return hasVirtualization ? undefined : 'the CPU shows neither vmx nor svm in /proc/cpuinfo'
}

/** Reads what the choice depends on from this host. */
export async function readAcceleratorFacts(): Promise<AcceleratorFacts> {
  const cpuInfo = await readFile('/proc/cpuinfo', 'utf8').catch(() => '')
  try {
    const device = await open('/dev/kvm', constants.O_RDWR)
    try {
      const { gid } = await device.stat()
      return { deviceError: undefined, deviceGroupId: gid, cpuInfo }
    } finally {
      await device.close()
    }
  } catch (error) {
    return { deviceError: messageOf(error), deviceGroupId: undefined, cpuInfo }
  }
}

/** The CPU's vendor as /proc/cpuinfo says it; undefined when it does not. */
export function cpuVendor(cpuInfo: string): string | undefined {
  return /^vendor_id\s*:\s*(\S+)/m.exec(cpuInfo)?.[1]
}
