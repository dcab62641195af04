import { assert } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import type { FleetRecord } from '../fleet/member.ts'
import { writeSuccessor } from '../store/level-identity.ts'
import type { Store } from '../store/store.ts'
import { fillStore, lastingPairs, type Tally } from './copy.ts'

/** A single host that becomes a fleet. */
export interface MigrationInit {
  /** The folder of the level store. */
  levelFolder: string
  /** etcd's own id of its cluster (`EtcdStatus.clusterId`). */
  clusterId: string
  /**
   * What the fleet says of itself. Its revisionBase is at least the level store's revision, so that
   * revisions go on growing and those from before count as compacted.
   */
  record: FleetRecord
  limits: Limits
}

/** What moving needs. */
export interface MigrationComponents {
  /** The level store, open; nobody writes to it any more, nor will. */
  from: Store
  /** etcd, empty, opened with the record's revisionBase. */
  to: Store
  log: Log
}

/**
 * Moves everything from level to etcd. Level is the truth until the last step, which records in its
 * folder that etcd is (`readSuccessor`, `storeMoved`). So after a crash at any point: with that
 * record go on with etcd, without it go on with level, and begin again with an empty etcd.
 * @throws storeNotEmpty, storeCopyDiffers, unavailable; then nothing has changed
 */
export async function migrateToEtcd(
  init: MigrationInit,
  { from, to, log }: MigrationComponents,
): Promise<Tally> {
  const { entries, revision } = await from.list('')
  const { fleetId, revisionBase } = init.record
  assert(revisionBase >= revision, 'revisions never go back')
  const tally = await fillStore(to, lastingPairs(entries), init.record, init.limits)
  assert((await from.revision()) === revision, 'nobody writes to a store that is being moved')
  await writeSuccessor(init.levelFolder, { fleetId, clusterId: init.clusterId })
  log.info({ ...tally, clusterId: init.clusterId }, 'the store was moved to etcd')
  return tally
}
