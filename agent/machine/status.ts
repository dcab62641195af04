import { type Condition, withCondition } from '../../resources/condition.ts'
import type {
  Phase,
  ReachablePort,
  VirtualMachine,
  VirtualMachineStatus,
} from '../../resources/virtual-machine.ts'
import type { ArrivalView } from './arrival.ts'
import { changedSince } from './made-from.ts'
import type { GuestRecord } from './record.ts'

/** What the host sees of a machine right now, beside its record. */
export interface View {
  host: string
  /** QEMU runs. */
  alive: boolean
  /** Its image is being asked for, so that it can start. */
  pulling?: boolean
  /** Its image is on its way while it runs. */
  arrival?: ArrivalView | undefined
  /** Whether the host has room for what guests write. */
  diskHasRoom?: boolean
  /** What QMP says; undefined while QEMU does not answer. */
  runState: 'running' | 'paused' | 'io-error' | 'ended' | undefined
  stopping: boolean
  /** Why it is not running although it should: a word and a sentence. */
  obstacle: { reason: string; message: string } | undefined
  /** The machine will be started again by itself. */
  willStart: boolean
  accelerator: 'kvm' | 'tcg'
  /** The guest's own address, from its agent. */
  address: string | undefined
  /** Something inside answered: SSH or the agent, whichever shows that the guest can be used. */
  answered: boolean
  agentConnected: boolean
}

/**
 * The status to be told of a machine.
 * @param time now, RFC 3339, for conditions that change
 */
export function statusOf(
  machine: VirtualMachine,
  record: GuestRecord | undefined,
  view: View,
  time: string,
): VirtualMachineStatus {
  const phase = phaseOf(machine, record, view)
  const old = machine.status?.conditions ?? []
  return {
    phase,
    observedGeneration: machine.metadata.generation,
    // Until it was placed here once, any host may take it.
    ...((view.alive || record !== undefined) && { host: view.host }),
    ...(record?.imageDigest && { imageDigest: record.imageDigest }),
    ...(view.alive && view.address !== undefined && { address: view.address }),
    ...(view.alive && { ports: portsOf(machine, record), accelerator: view.accelerator }),
    restarts: restartsOf(record, view),
    ...(record?.lastExit && { lastExit: exitOf(record.lastExit) }),
    ...(record?.bootTimings && { bootTimings: record.bootTimings }),
    conditions: [
      ...conditionsOf(old, phase, record, view, time),
      ...imageLocal(old, view, time),
      ...restartRequired(old, view.alive ? changedSince(machine.spec, record?.madeFrom) : [], time),
    ],
  }
}

/** A start that is owed still has not happened. */
function restartsOf(record: GuestRecord | undefined, view: View): number {
  const owed = record?.startBegun && !view.alive ? 1 : 0
  return Math.max(0, (record?.runs ?? 0) - owed - 1)
}

function exitOf({ reason, message, time }: NonNullable<GuestRecord['lastExit']>) {
  return { reason, message, time }
}

function portsOf(machine: VirtualMachine, record: GuestRecord | undefined): ReachablePort[] {
  return (record?.forwards ?? []).map(forward => {
    const wanted = machine.spec.ports?.find(
      port => port.guestPort === forward.guestPort && port.protocol === forward.protocol,
    )
    const { guestPort, hostPort, hostAddress, protocol } = forward
    return {
      ...(wanted?.name && { name: wanted.name }),
      guestPort,
      hostPort,
      hostAddress,
      protocol,
    }
  })
}

/** Where a machine is in its life. */
export function phaseOf(
  machine: VirtualMachine,
  record: GuestRecord | undefined,
  view: View,
): Phase {
  if (view.alive) {
    if (view.runState === 'running') return 'Running'
    if (view.runState === 'paused') {
      return machine.spec.powerState === 'Suspended' ? 'Suspended' : 'Starting'
    }
    // A guest that has ended counts as running until its QEMU is gone and its memory is free.
    return record?.bootTimings?.firmwareMs === undefined ? 'Starting' : 'Running'
  }
  if (view.pulling) return 'Pulling'
  if (view.willStart) return record?.lastExit === undefined ? 'Pending' : 'Starting'
  if (machine.spec.powerState === 'Stopped' || record?.lastExit === undefined) return 'Stopped'
  const { reason, intended } = record.lastExit
  return intended || reason === 'GuestPoweredOff' ? 'Stopped' : 'Failed'
}

function conditionsOf(
  old: readonly Condition[],
  phase: Phase,
  record: GuestRecord | undefined,
  view: View,
  time: string,
): Condition[] {
  const ready = readyCondition(phase, record, view)
  const agent: Omit<Condition, 'lastTransitionTime'> = view.agentConnected
    ? { type: 'AgentConnected', status: 'True', reason: 'Answered', message: 'The agent answers' }
    : {
        type: 'AgentConnected',
        status: 'False',
        reason: 'NoAnswer',
        message: 'The guest agent has not answered',
      }
  const others = old.filter(({ type }) => type !== restartRequiredType && type !== imageLocalType)
  return withCondition(withCondition(others, ready, time), agent, time)
}

const imageLocalType = 'ImageLocal'

/** Whether the guest needs nobody else for its disk; there only while it runs. */
function imageLocal(old: readonly Condition[], view: View, time: string): Condition[] {
  const { alive, arrival } = view
  if (!alive) return []
  const tell = (status: 'True' | 'False', reason: string, message: string) =>
    withCondition(
      old.filter(({ type }) => type === imageLocalType),
      { type: imageLocalType, status, reason, message },
      time,
    )
  if (arrival === undefined) return tell('True', 'Local', 'The image is on the host')
  const { percent, stalled } = arrival
  if (stalled !== undefined) return tell('False', 'ImageStalled', stallMessage(stalled))
  const share = percent === undefined ? '' : `: ${percent} % of it are here`
  return tell('False', 'Filling', `The image is on its way${share}`)
}

function stallMessage(stalled: string): string {
  return (
    `Nothing comes of the image: ${stalled}. The guest waits where it needs what is not here, ` +
    'and goes on by itself when a host or registry that has the image is back'
  )
}

const restartRequiredType = 'RestartRequired'

/** There only while it is true. */
function restartRequired(old: readonly Condition[], changed: string[], time: string): Condition[] {
  if (changed.length === 0) return []
  const fields = changed.join(', ')
  const message = `Changed since the last start, in effect from the next one on: ${fields}`
  const condition = {
    type: restartRequiredType,
    status: 'True',
    reason: 'SpecChanged',
    message,
  } as const
  return withCondition(
    old.filter(({ type }) => type === restartRequiredType),
    condition,
    time,
  )
}

function readyCondition(
  phase: Phase,
  record: GuestRecord | undefined,
  view: View,
): Omit<Condition, 'lastTransitionTime'> {
  const no = (reason: string, message: string) =>
    ({ type: 'Ready', status: 'False', reason, message }) as const
  if (view.obstacle !== undefined) return no(view.obstacle.reason, view.obstacle.message)
  if (view.stopping || view.runState === 'ended') {
    return no('Stopping', 'The guest is being shut down')
  }
  if (view.runState === 'io-error' && view.arrival !== undefined && view.diskHasRoom !== false) {
    const { stalled } = view.arrival
    const waits = 'The guest is paused until a part of its image is here. It goes on by itself'
    return no('ImageStalled', stalled === undefined ? waits : stallMessage(stalled))
  }
  if (view.runState === 'io-error') {
    return no(
      'DiskFull',
      'The guest is paused: its disk has no room on the host. It goes on by itself',
    )
  }
  if (phase === 'Running') {
    if (view.answered) {
      return { type: 'Ready', status: 'True', reason: 'Answered', message: 'The guest answers' }
    }
    return no('Booting', 'The guest runs and has not answered yet')
  }
  if ((phase === 'Failed' || phase === 'Starting') && record?.lastExit !== undefined) {
    if (!view.alive) return no(record.lastExit.reason, record.lastExit.message)
  }
  if (phase === 'Pulling') return no(phase, 'The image is being fetched')
  return no(phase, `The machine is ${phase.toLowerCase()}`)
}
