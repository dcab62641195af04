import { failure } from '../../base/errors.ts'
import type { Condition } from '../../resources/condition.ts'
import type { Resource } from '../../resources/kind.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import type { ApiClient } from './api-client.ts'
import { virtualMachineName } from './kinds.ts'
import { getObject } from './resource-client.ts'
import { isRecord } from './untyped.ts'
import type { Judge, Verdict } from './wait.ts'

/**
 * The object as a virtual machine. The server checked every field when it was stored; here only
 * what tells another kind apart is looked at.
 */
export function asMachine(object: Resource): VirtualMachine {
  if (isMachine(object)) return object
  const detail = `it is a ${object.kind}, no VirtualMachine`
  throw failure('answerInvalid', { request: object.metadata.name, detail })
}

function isMachine(object: Resource): object is VirtualMachine {
  return object.kind === virtualMachineName.kind && isRecord(object.spec)
}

/** Reads a virtual machine. */
export async function getMachine(
  client: ApiClient,
  namespace: string,
  name: string,
): Promise<VirtualMachine> {
  return asMachine(await getObject(client, virtualMachineName, namespace, name))
}

/** The condition of a type, if the machine has it. */
export function conditionOf(machine: VirtualMachine, type: string): Condition | undefined {
  return machine.status?.conditions?.find(condition => condition.type === type)
}

/** Where the machine is in its life, in a word. */
export function phaseOf(machine: VirtualMachine): string {
  return machine.metadata.deletionTimestamp
    ? 'Deleting'
    : String(machine.status?.phase ?? 'Pending')
}

/** Where the machine is in its life and, where it is not well, why. */
export function stateOf(machine: VirtualMachine): string {
  const phase = phaseOf(machine)
  const ready = conditionOf(machine, 'Ready')
  if (ready === undefined || ready.status === 'True') return phase
  const why = ready.message || ready.reason
  return why === '' ? phase : `${phase}, ${why}`
}

/** Whether the status speaks of the spec as it is now. */
function isObserved(machine: VirtualMachine): boolean {
  const { generation } = machine.metadata
  const observed = machine.status?.observedGeneration
  return generation === undefined || observed === undefined || observed >= generation
}

/** Judges whether a machine that should run can be reached. */
export function judgeReady(object: Resource | undefined): Verdict {
  if (object === undefined) return { is: 'failed', state: 'it was deleted' }
  const machine = asMachine(object)
  const state = stateOf(machine)
  if (machine.metadata.deletionTimestamp) return { is: 'failed', state }
  if (!isObserved(machine)) return { is: 'waiting', state }
  if (conditionOf(machine, 'Ready')?.status === 'True') return { is: 'reached' }
  if (machine.spec.powerState !== 'Running') return { is: 'failed', state }
  const ended = machine.status?.phase === 'Failed' || machine.status?.phase === 'Stopped'
  return ended && machine.status?.lastExit !== undefined
    ? { is: 'failed', state: `${state}; ${machine.status.lastExit.message}` }
    : { is: 'waiting', state }
}

/** Judges whether a machine has come to a phase. */
export function judgePhase(phase: string): Judge {
  return object => {
    if (object === undefined) return { is: 'failed', state: 'it was deleted' }
    const machine = asMachine(object)
    const reached = phaseOf(machine) === phase && isObserved(machine)
    return reached ? { is: 'reached' } : { is: 'waiting', state: stateOf(machine) }
  }
}
