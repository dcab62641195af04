import { type Condition, findCondition, withCondition } from '../../resources/condition.ts'
import type { VirtualMachine, VirtualMachineStatus } from '../../resources/virtual-machine.ts'

/** Why a machine is not where it should be: a word for programs, a sentence for people. */
export interface Why {
  reason: string
  message: string
}

/** What the leader tells as the reason why a machine is not ready. */
const leaderReasons = new Set(['Unschedulable', 'HostLost', 'HostForgotten', 'NotClaimed'])
/** Tells whether a machine was given to a host; there once it had to wait for one. */
const scheduledType = 'Scheduled'

/**
 * The status of a machine that no host has. Whatever an earlier host told of its guest is gone with
 * it, except how its last run ended.
 * @param time now, RFC 3339
 */
export function unplacedStatus(
  machine: VirtualMachine,
  why: Why,
  time: string,
): VirtualMachineStatus {
  const { restarts, lastExit, conditions = [] } = machine.status ?? {}
  const ours = conditions.filter(({ type }) => type === 'Ready' || type === scheduledType)
  const ready = { type: 'Ready', status: 'False', ...why } as const
  const scheduled = { type: scheduledType, status: 'False', ...why } as const
  return {
    phase: 'Pending',
    observedGeneration: machine.metadata.generation,
    ...(restarts !== undefined && { restarts }),
    ...(lastExit !== undefined && { lastExit }),
    conditions: withCondition(withCondition(ours, ready, time), scheduled, time),
  }
}

/** The status of a machine that waits for room on the host that has it, which tells the rest. */
export function waitingStatus(
  machine: VirtualMachine,
  why: Why,
  time: string,
): VirtualMachineStatus {
  const { status = { phase: 'Pending' as const } } = machine
  const scheduled = { type: scheduledType, status: 'False', ...why } as const
  return { ...status, conditions: withCondition(status.conditions ?? [], scheduled, time) }
}

/** What is told of whether a machine is ready, to see whether it changed. */
export function toldReady({ status }: Partial<VirtualMachine> = {}): string {
  const ready = findCondition(status?.conditions, 'Ready')
  return JSON.stringify([ready?.reason, ready?.message])
}

/** Whether it was a host, and not the leader, that last told whether a machine is ready. */
export function toldByHost({ status }: Partial<VirtualMachine> = {}): boolean {
  const ready = findCondition(status?.conditions, 'Ready')
  return ready !== undefined && !leaderReasons.has(ready.reason)
}

/** What a machine was told of why it waits; undefined when it was told nothing. */
export function toldUnplaced(machine: VirtualMachine): Condition | undefined {
  const condition = findCondition(machine.status?.conditions, scheduledType)
  return condition?.status === 'False' ? condition : undefined
}

/** The status of a machine that waited and has a host now, which will tell all the rest. */
export function scheduledStatus(
  machine: VirtualMachine,
  host: string,
  time: string,
): VirtualMachineStatus {
  const message = `It was given to the host ${host}`
  const scheduled = { type: scheduledType, status: 'True', reason: 'Scheduled', message } as const
  const { status = { phase: 'Pending' as const } } = machine
  return { ...status, conditions: withCondition(status.conditions ?? [], scheduled, time) }
}

/** The status of a machine whose host is silent: what it last told may not be so any more. */
export function hostLostStatus(
  machine: VirtualMachine,
  host: string,
  time: string,
): VirtualMachineStatus {
  const message = `Nothing is heard of the host ${host}, which has it; it waits for that host`
  const ready = { type: 'Ready', status: 'Unknown', reason: 'HostLost', message } as const
  const { status } = machine
  return {
    ...status,
    phase: 'Unknown',
    host,
    conditions: withCondition(status?.conditions ?? [], ready, time),
  }
}

/** The status of a machine whose host was forgotten, and its disk with it. */
export function hostForgottenStatus(
  machine: VirtualMachine,
  host: string,
  time: string,
): VirtualMachineStatus {
  const message = `The host ${host} was given up for good, and this machine's disk with it`
  const ready = { type: 'Ready', status: 'False', reason: 'HostForgotten', message } as const
  const { restarts, lastExit, conditions = [] } = machine.status ?? {}
  return {
    phase: 'Failed',
    observedGeneration: machine.metadata.generation,
    host,
    ...(restarts !== undefined && { restarts }),
    ...(lastExit !== undefined && { lastExit }),
    conditions: withCondition(
      conditions.filter(({ type }) => type !== 'AgentConnected'),
      ready,
      time,
    ),
  }
}
