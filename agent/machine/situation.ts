import type { Placement } from '../../cluster/fleet/placement.ts'
import type { RunState } from '../../kvm/qmp/commands.ts'
import {
  restartedAtAnnotation,
  startedAtAnnotation,
  type VirtualMachine,
} from '../../resources/virtual-machine.ts'
import type { GuardedProcess } from '../guardian/protocol.ts'
import type { Situation, Standing } from './decide.ts'
import { longestRestartMs } from './record.ts'
import type { Tracked } from './tracked.ts'

/** What a guest's QEMU run state means to us. */
export function guestStateOf(runState: RunState | undefined): Situation['guest'] {
  switch (runState) {
    case 'running':
    // Asleep by its own wish (ACPI S3): it wakes up by itself.
    case 'suspended':
      return 'running'
    case 'paused':
    case 'prelaunch':
      return 'paused'
    case 'io-error':
      return 'blocked'
    case 'shutdown':
    case 'guest-panicked':
    case 'internal-error':
      return 'ended'
    default:
      return 'unknown'
  }
}

/** What this moment means for the host, beside the machine itself. */
export interface Surroundings {
  process: GuardedProcess | undefined
  /** Wall time. */
  nowMs: number
  monotonicMs: number
  diskHasRoom: boolean
  standing: Standing
  placement: Placement | undefined
  /** Of the host's lease, while it lives. */
  leaseRevision: number | undefined
  /** The host is being emptied. */
  hostDrains: boolean
}

/**
 * Whether the claim says other than what is: the policy was changed, or the host has another lease,
 * or none was needed when the guest was started. A guest that runs and was never claimed is from
 * before there were placements: until it is, nobody would end it when it may be replaced.
 */
function isOld(machine: VirtualMachine, { placement, leaseRevision }: Surroundings): boolean {
  if (leaseRevision === undefined) return false
  if (placement?.state === 'Assigned') return true
  if (placement?.state !== 'Claimed') return false
  const { onHostLoss } = machine.spec
  return placement.onHostLoss !== onHostLoss || placement.leaseRevision !== leaseRevision
}

/** A wait that is longer than the longest there is says that the wall clock was set back since. */
function waitOf(notBeforeMs: number, nowMs: number): number {
  const waitMs = Math.max(0, notBeforeMs - nowMs)
  return waitMs > longestRestartMs ? 0 : waitMs
}

/** Puts together what a step is decided from. */
export function situationOf(
  machine: VirtualMachine,
  tracked: Tracked,
  surroundings: Surroundings,
): Situation {
  const { process, nowMs, monotonicMs, diskHasRoom, standing, hostDrains } = surroundings
  const { record, runtime } = tracked
  const status = runtime?.guest.status()
  const deleting = machine.metadata.deletionTimestamp !== undefined
  const { deletionGracePeriodSeconds: graceSeconds } = machine.metadata
  const graceMs = graceSeconds === undefined ? Number.POSITIVE_INFINITY : graceSeconds * 1000
  const annotations = machine.metadata.annotations ?? {}
  const asked = (name: string, acted: string | undefined) =>
    annotations[name] !== undefined && annotations[name] !== acted
  return {
    standing,
    // Without its disk a machine that waits for its host would not be the same.
    claimIsOld: isOld(machine, surroundings),
    draining: hostDrains && machine.spec.onHostLoss === 'Replace',
    wanted: deleting ? 'Gone' : machine.spec.powerState,
    restartPolicy: machine.spec.restartPolicy,
    mayCutPower: !graceSeconds,
    process: process === undefined ? 'none' : process.ended ? 'ended' : 'running',
    guest: status?.connected ? guestStateOf(status.runState) : 'unknown',
    diskHasRoom,
    imageStalled: tracked.arrival?.view().stalled !== undefined,
    // A deletion may leave less time than the shutdown that is under way was given.
    stopping: tracked.stopping !== undefined && tracked.stopByMs <= monotonicMs + graceMs,
    intent: record?.intent,
    startBegun: record?.startBegun ?? false,
    blockedWaitMs: Math.max(0, tracked.resumeNotBeforeMs - monotonicMs),
    lastExit: record?.lastExit,
    startAsked: record !== undefined && asked(startedAtAnnotation, record.actedStart),
    restartAsked: record !== undefined && asked(restartedAtAnnotation, record.actedRestart),
    waitMs: waitOf(record?.notBeforeMs ?? 0, nowMs),
  }
}
