import { type GuestRecord, newRecord } from '../../agent/machine/record.ts'
import { newTracked, type Tracked } from '../../agent/machine/tracked.ts'
import { guestFolder } from '../../kvm/guest-folder.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'

/** A uid like those that the server gives. */
export const testUid = '01234567-89ab-4cde-8f01-23456789abcd'

/** A machine as the store has it. */
export function testMachine(
  spec: Partial<VirtualMachine['spec']> = {},
  metadata: Partial<VirtualMachine['metadata']> = {},
): VirtualMachine {
  return {
    apiVersion: 'macfleet.dev/v1',
    kind: 'VirtualMachine',
    metadata: { name: 'web', namespace: 'default', uid: testUid, generation: 1, ...metadata },
    spec: {
      image: 'micro',
      cpu: 1,
      memory: '1Gi',
      powerState: 'Running',
      restartPolicy: 'OnFailure',
      onHostLoss: 'Wait',
      machine: 'linux',
      priority: 0,
      terminationGracePeriodSeconds: 30,
      ...spec,
    },
  }
}

/** The record of a guest that was started once, and what is changed in it. */
export function testRecord(changes: Partial<GuestRecord> = {}): GuestRecord {
  return { ...newRecord(testUid, 'default', 'web'), runs: 1, startedAtMs: 0, ...changes }
}

/** What the daemon holds of that machine. */
export function testTracked(folder: string, record: GuestRecord | undefined): Tracked {
  const roots = { dataRoot: `${folder}/guests`, runRoot: `${folder}/run` }
  const machine = { uid: testUid, namespace: 'default', name: 'web' }
  return newTracked(machine, guestFolder(roots, testUid), record)
}
