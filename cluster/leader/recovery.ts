import type { Log } from '../../base/log.ts'
import type { Again } from '../../base/work-queue.ts'
import { fleetKey, hostReportPrefix } from '../fleet/keys.ts'
import type { HostReport } from '../fleet/member.ts'
import type { Store } from '../store/store.ts'
import type { FencedWrites } from './fenced-writes.ts'
import type { FleetView } from './view.ts'

/** What recovering needs. */
export interface RecoveryComponents {
  view: FleetView
  writes: FencedWrites
  store: Store
  log: Log
}

/** Between looks at who has reported. */
const lookMs = 1_000

/** Whether the fleet was restored from a backup and not all of its hosts have reported yet. */
export function isRecovering(view: Pick<FleetView, 'record'>): boolean {
  return view.record()?.value.recoveringSince !== undefined
}

/**
 * Ends the recovery once every listed host lives and has reported what runs on it: the others have
 * to be forgotten.
 */
export async function endRecovery({
  view,
  writes,
  store,
  log,
}: RecoveryComponents): Promise<Again> {
  const record = view.record()
  if (record?.value.recoveringSince === undefined) return undefined
  const members = view.members().filter(({ state }) => state === 'Approved')
  const reported = await reportsOf(store, record.value.era)
  const missing = members.filter(
    ({ name }) => view.lease(name) === undefined || !reported.has(name),
  )
  if (missing.length > 0) {
    const hosts = missing.slice(0, 20).map(({ name }) => name)
    log.debug({ missing: missing.length, hosts }, 'the fleet recovers: hosts have yet to report')
    return { againMs: lookMs }
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

/** A report of an earlier era came with the backup. */
async function reportsOf(store: Store, era: number): Promise<Set<string>> {
  const { entries } = await store.list(hostReportPrefix)
  const ofEra = entries.filter(({ value }) => (value as unknown as HostReport).era === era)
  return new Set(ofEra.map(({ key }) => key.slice(hostReportPrefix.length)))
}
