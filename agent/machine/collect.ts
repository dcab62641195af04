import { backoffMs } from '../../base/backoff.ts'
import { endingOf } from '../../kvm/ending.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import type { ExitRecord } from '../guardian/protocol.ts'
import { closeArrival } from './open-arrival.ts'
import { type GuestRecord, longestRestartMs, type RecordedExit } from './record.ts'
import { forgetProcess } from './remove.ts'
import type { StepContext } from './step-context.ts'
import { saveRecord, type Tracked } from './tracked.ts'

/** Waits between starts of a guest that keeps failing. */
const restartBackoff = { firstMs: 1000, mostMs: longestRestartMs }
/** A guest that held this long was fine: its next failure is a first one. */
const settledMs = 600_000

/** What taking note of an end needs. */
export type CollectContext = Pick<
  StepContext,
  'clock' | 'log' | 'events' | 'guardian' | 'metrics' | 'processes'
>

/** Takes note of how a run ended, then frees the process's name. */
export async function collectExit(
  tracked: Tracked,
  machine: VirtualMachine,
  context: CollectContext,
): Promise<void> {
  const { uid } = tracked
  const process = context.processes.get(uid)
  const { runtime, record } = tracked
  if (process?.ended === undefined) return
  // It was judged already when we died, or the disk was full, between the next lines: the intent
  // that explains it is gone since.
  const isJudged = record?.lastExit?.time === process.ended.endedAt
  if (record !== undefined && !isJudged) {
    const lastExit = judge(record, process.ended, runtime?.guest.status().runState)
    tracked.record = afterExit(record, lastExit, context.clock.wallMs())
    context.metrics.ended(lastExit.reason)
    tell(machine, lastExit, context)
  }
  await saveRecord(tracked)
  await forgetProcess(uid, context)
  tracked.runtime = undefined
  tracked.stopping?.abort()
  tracked.stopping = undefined
  await runtime?.close()
  await closeArrival(tracked)
}

/**
 * What ended a run: what QEMU said before it was let go, else what its process and our intent say.
 */
export function judge(
  record: GuestRecord,
  ended: ExitRecord,
  runState: Parameters<typeof endingOf>[0]['runState'],
): RecordedExit {
  const intended = record.intent !== undefined && record.intent !== 'ended'
  const common = { time: ended.endedAt, intended }
  if (record.guestEnding !== undefined) return { ...record.guestEnding, ...common }
  if (ended.reason === 'fenced' && !intended) {
    const message = 'The host could not renew its lease, so that the machine may run elsewhere'
    return { reason: 'Fenced', message, ...common }
  }
  if (ended.reason !== 'exited' && !intended) {
    const message = 'The guardian, which all guests of this host belong to, ended'
    return { reason: 'GuardianLost', message, ...common }
  }
  const exit = { code: ended.code, signal: ended.signal, stderr: ended.stderrTail }
  const ending = endingOf({ runState, meant: record.intent !== undefined, exit })
  return { reason: ending?.cause ?? 'QemuDied', message: ending?.message ?? '', ...common }
}

/**
 * The record of a run that is over: what was meant with it is done, and the next start may have to
 * wait.
 */
export function afterExit(record: GuestRecord, lastExit: RecordedExit, nowMs: number): GuestRecord {
  const { intent: _, guestEnding: __, notBeforeMs: ___, startBegun: ____, ...rest } = record
  if (lastExit.intended) return { ...rest, lastExit, failures: 0 }
  const settled = nowMs - (record.startedAtMs ?? nowMs) >= settledMs
  const failures = settled ? 1 : record.failures + 1
  return { ...rest, lastExit, failures, notBeforeMs: nowMs + backoffMs(restartBackoff, failures) }
}

function tell(
  machine: VirtualMachine,
  { reason, message }: RecordedExit,
  context: CollectContext,
): void {
  const type = reason === 'GuestPoweredOff' || reason === 'Killed' ? 'Normal' : 'Warning'
  context.events.record(machine, { type, reason, message })
  const { uid, namespace, name } = machine.metadata
  context.log.info({ uid, namespace, name, reason, message }, 'guest ended')
}
