import { type Clock, timestamp } from '../../base/clock.ts'
import { assert } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { hostTrustPrefix, tokenPrefix } from '../fleet/keys.ts'
import type { FleetRecord } from '../fleet/member.ts'
import type { Store } from '../store/store.ts'
import type { Backup } from './backup.ts'
import { fillStore, type Pair, type Tally } from './copy.ts'

/**
 * Added to the revision of a backup: more changes than any fleet makes between a backup and its
 * restore (10,000 a second for three years), so that no revision is ever told twice.
 */
const revisionGap = 2 ** 40

/**
 * The record of a fleet that begins anew from a backup: in a new era, in Recovery, with revisions
 * beyond all that were ever told.
 * @param seen the highest era and revisionBase that this host knows of, from its own files: the
 *   same backup may have been restored before
 */
export function recordAfterRestore(
  { header: { fleet, revision } }: Backup,
  seen: { era: number; revisionBase: number },
  clock: Clock,
): FleetRecord {
  const revisionBase = Math.max(revision, fleet.revisionBase, seen.revisionBase) + revisionGap
  assert(Number.isSafeInteger(revisionBase + revisionGap), 'revisions stay exact numbers')
  return {
    ...fleet,
    era: Math.max(fleet.era, seen.era) + 1,
    revisionBase,
    recoveringSince: timestamp(clock),
  }
}

/**
 * Fills the empty etcd of one voter from a backup. Join tokens stay out: whoever got one of them
 * since may not come back with it; and so does what hosts said of the authorities of before.
 * Killed at any point: begin again with an empty etcd; one without `copiedKey` is no fleet.
 * @param store opened with the record's revisionBase
 * @throws backupRefused, storeNotEmpty, storeCopyDiffers, unavailable
 */
export function restoreInto(
  store: Store,
  backup: Backup,
  record: FleetRecord,
  limits: Limits,
): Promise<Tally> {
  return fillStore(store, withoutVoid(backup), record, limits)
}

const dropped = [tokenPrefix, hostTrustPrefix]

async function* withoutVoid(backup: Backup): AsyncGenerator<Pair> {
  for await (const pair of backup.pairs()) {
    if (!dropped.some(prefix => pair.key.startsWith(prefix))) yield pair
  }
}
