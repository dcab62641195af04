import type { Clock } from '../../base/clock.ts'
import type { Log } from '../../base/log.ts'
import { type Again, createWorkQueue } from '../../base/work-queue.ts'
import type { HostPlacements } from '../../cluster/fleet/host-placements.ts'
import type { Placement } from '../../cluster/fleet/placement.ts'
import type { Objects } from '../../cluster/objects.ts'
import { virtualMachineKind } from '../../resources/virtual-machine.ts'
import type { HeldLease } from '../host-lease.ts'
import type { Step } from './decide.ts'
import { standingOf } from './standing.ts'
import type { Tracked } from './tracked.ts'

/** A fleet that was restored from a backup, until every host has reported. */
export interface Recovery {
  era: number
  /** Revisions up to this one are those of the backup. */
  beganAfter: number
}

/** Whose guests are reported. */
export interface RecoveryReportInit {
  host: string
  /** Undefined when the fleet does not recover. */
  recovery(): Recovery | undefined
  /** Whether it is known what runs here. */
  isReady(): boolean
  tracked(): Iterable<Tracked>
  runs(uid: string): boolean
}

/** What reporting needs. */
export interface RecoveryReportComponents {
  placements: HostPlacements
  lease: HeldLease
  objects: Objects
  clock: Clock
  log: Log
}

/** Keeps the running guests of a fleet that recovers, and says when all of them are accounted for. */
export interface RecoveryReport {
  stop(): Promise<void>
}

const lookMs = 500
const notFound = {
  reason: 'NotFound',
  message: 'The fleet was restored from a backup, and nothing of it was found on its host',
}

/** How often a machine of a fleet that recovers is looked at. */
export const recoveryWaitMs = 2_000

/** What may be done with a machine while the fleet recovers: nothing that starts, ends or deletes. */
export function whileRecovering(step: Step): Step {
  switch (step.kind) {
    case 'rest':
    case 'wait':
    case 'claimAnew':
    case 'collect':
      return step
    default:
      return { kind: 'wait', forMs: recoveryWaitMs }
  }
}

/** Begins, and ends by itself when the fleet does not recover, or this host has reported. */
export function startRecoveryReport(
  init: RecoveryReportInit,
  components: RecoveryReportComponents,
): RecoveryReport {
  const queue = createWorkQueue(
    { handle: () => reportOnce(init, components), backoff: { firstMs: 200, mostMs: 5_000 } },
    components,
  )
  queue.add('recovery')
  return { stop: () => queue.stop() }
}

async function reportOnce(
  init: RecoveryReportInit,
  components: RecoveryReportComponents,
): Promise<Again> {
  const recovery = init.recovery()
  if (recovery === undefined) return undefined
  const { placements, lease, log } = components
  if (!init.isReady() || !placements.isKnown() || lease.leaseRevision() === undefined) {
    return { againMs: lookMs }
  }
  const here = new Map([...init.tracked()].map(tracked => [tracked.uid, tracked]))
  for (const tracked of here.values()) {
    if (init.runs(tracked.uid)) await keep(tracked, recovery, init, components)
  }
  for (const { uid, diskEpoch, namespace, name } of placements.ours()) {
    const isHere = here.get(uid)?.record !== undefined
    if (diskEpoch === undefined || isHere) continue
    log.warn({ uid, namespace, name }, notFound.message)
    if (!(await placements.miss(uid, notFound))) return { againMs: lookMs }
  }
  await placements.report(recovery.era)
  log.info({ era: recovery.era }, 'told the restored fleet what runs here')
  return undefined
}

/** A guest that runs beats the record; one whose machine is not in the backup is left alone. */
async function keep(
  { uid, record }: Tracked,
  { beganAfter }: Recovery,
  { host }: RecoveryReportInit,
  { placements, objects, clock, log }: RecoveryReportComponents,
): Promise<void> {
  const placement = placements.of(uid)
  if (record === undefined) return
  if (placement !== undefined && standingOf(placement, record, host) !== 'elsewhere') return
  const { namespace, name, request, diskEpoch } = record
  const machine = await objects.find(virtualMachineKind, { namespace, name })
  if (machine?.metadata.uid !== uid || request === undefined) {
    log.error({ uid, namespace, name }, 'a guest runs here whose machine is not in the backup')
    return
  }
  const { onHostLoss, machine: kind } = machine.spec
  const given: Placement = {
    ...{ uid, namespace, name, host, request, machine: kind, onHostLoss },
    epoch: diskEpoch ?? 1,
    state: 'Claimed',
    ...(diskEpoch !== undefined && { diskEpoch }),
    changedAt: new Date(clock.wallMs()).toISOString(),
  }
  const isKept = await placements.takeOver(given, beganAfter)
  log.warn({ uid, namespace, name, isKept }, 'a guest runs here that the backup has elsewhere')
}
