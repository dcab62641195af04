import { createHash } from 'node:crypto'
import { quantityValue } from '../../resources/quantity.ts'
import type { VirtualMachineSpec } from '../../resources/virtual-machine.ts'

/** What a run is made from and keeps to its end, field by field of the spec. */
function parts(spec: VirtualMachineSpec): Record<string, unknown> {
  return {
    cpu: quantityValue(spec.cpu),
    memory: quantityValue(spec.memory),
    ports: spec.ports ?? [],
    sshKeys: spec.sshKeys ?? [],
    userData: spec.userData ?? '',
  }
}

/**
 * What a run is made from, a digest per field: to be compared later. Digests, because user data
 * often hold secrets and this is written down.
 */
export function madeFrom(spec: VirtualMachineSpec): Record<string, string> {
  const entries = Object.entries(parts(spec)).map(([field, value]) => {
    const digest = createHash('sha256').update(JSON.stringify(value)).digest('hex')
    return [field, digest.slice(0, 16)] as const
  })
  return Object.fromEntries(entries)
}

/** The fields of the spec that say something else now than when the run began. */
export function changedSince(
  spec: VirtualMachineSpec,
  then: Readonly<Record<string, string>> | undefined,
): string[] {
  if (then === undefined) return []
  return Object.entries(madeFrom(spec))
    .filter(([field, digest]) => then[field] !== undefined && then[field] !== digest)
    .map(([field]) => field)
}
