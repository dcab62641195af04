import type { Log } from '../../base/log.ts'
import type { Again } from '../../base/work-queue.ts'
import { fleetKey } from '../fleet/keys.ts'
import type { FencedWrites } from './fenced-writes.ts'
import type { FleetView } from './view.ts'

/** What recovering needs. */
export interface RecoveryComponents {
  view: FleetView
  writes: FencedWrites
  log: Log
}

/** Whether the fleet was restored from a backup and not all of its hosts have reported yet. */
export function isRecovering(view: Pick<FleetView, 'record'>): boolean {
  return view.record()?.value.recoveringSince !== undefined
}

/** Ends the recovery once every listed host has a lease: the others have to be forgotten. */
export async function endRecovery({ view, writes, log }: RecoveryComponents): Promise<Again> {
  const record = view.record()
  if (record?.value.recoveringSince === undefined) return undefined
  const members = view.members().filter(({ state }) => state === 'Approved')
  const missing = members.filter(({ name }) => view.lease(name) === undefined)
  if (missing.length > 0) {
    const hosts = missing.slice(0, 20).map(({ name }) => name)
    log.info({ missing: missing.length, hosts }, 'the fleet recovers: hosts have yet to report')
    return undefined
  }
  const { recoveringSince: _, ...value } = record.value
  const { modRevision } = record.entry
  const done = await writes.write({
    compare: [{ key: fleetKey, modRevision }],
    operations: [{ put: fleetKey, value }],
  })
  if (done) log.info({ hosts: members.length }, 'the fleet has recovered: every host has reported')
  return done ? undefined : { againMs: 1_000 }
}
