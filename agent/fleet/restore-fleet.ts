import type { Clock } from '../../base/clock.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import type { Backup } from '../../cluster/etcd/backup.ts'
import { recordAfterRestore, restoreInto } from '../../cluster/etcd/restore.ts'
import { openEtcdStore } from '../../cluster/store/etcd.ts'
import type { Config } from '../config.ts'
import { startFirstVoter } from '../etcd/first-voter.ts'
import { keepGuardian } from '../guardian-keeper.ts'
import { ownVersion } from '../host-controller.ts'
import { createFleet, fleetRecords } from '../membership/create-fleet.ts'
import { ownAddress } from './address.ts'
import { confirmBeginning, markBeginning } from './beginning.ts'
import { createEtcdParts } from './etcd-parts.ts'
import { setLevelAside } from './level-aside.ts'
import { seenEra } from './seen-eras.ts'

/** What restoring needs. */
export interface RestoreFleetComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
}

const etcdStartMs = 60_000

/**
 * Makes this single host the first of a fleet out of a backup: the same fleet in a new era, with
 * new authorities, so that nobody of the old one is a member by his old certificate. Killed before
 * it is done, the host is a single one still.
 */
export async function restoreFleet(
  config: Config,
  backup: Backup,
  components: RestoreFleetComponents,
  say: (message: string) => void,
): Promise<void> {
  const { clock, limits } = components
  const { dataDir, machineIdFile, hostName: name } = config
  const address = ownAddress(config)
  const seen = await seenEra(dataDir, backup.header.fleet.fleetId)
  const record = recordAfterRestore(backup, seen, clock)
  const { rack } = config.fleet
  await markBeginning(dataDir)
  const fleet = await createFleet(
    {
      ...{ dataDir, machineIdFile, name, address, version: ownVersion() },
      ...(rack !== undefined && { rack }),
      fleetId: record.fleetId,
      era: record.era,
      revisionBase: record.revisionBase,
    },
    components,
  )
  const guardian = await keepGuardian(config, components)
  const etcd = await createEtcdParts({ config, fleet, address }, { ...components, guardian })
  try {
    say('starting etcd')
    const { peerUrl, clientUrl } = etcd
    const init = { name, peerUrl, clientUrl, timeoutMs: etcdStartMs }
    await startFirstVoter(init, { ...components, ...etcd })
    say('filling the store')
    const { connection } = etcd
    const { revisionBase } = record
    const store = openEtcdStore({ connection, revisionBase }, components)
    try {
      await restoreInto(store, backup, record, limits)
      await store.transaction({ compare: [], operations: fleetRecords(fleet) })
    } finally {
      await store.close()
    }
    await fleet.remember({ fleet: record })
    await confirmBeginning(dataDir)
    await setLevelAside(dataDir)
  } catch (error) {
    await etcd.process.stop().catch(() => {})
    throw error
  } finally {
    etcd.connection.close()
    guardian.close()
  }
}
