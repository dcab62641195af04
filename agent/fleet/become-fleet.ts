import type { Clock } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import { migrateToEtcd } from '../../cluster/etcd/migrate.ts'
import { hostLeasePrefix, memberPrefix } from '../../cluster/fleet/keys.ts'
import { openEtcdStore } from '../../cluster/store/etcd.ts'
import { openLevelStore } from '../../cluster/store/level.ts'
import type { Store } from '../../cluster/store/store.ts'
import type { Config } from '../config.ts'
import { startFirstVoter } from '../etcd/first-voter.ts'
import { keepGuardian } from '../guardian-keeper.ts'
import { ownVersion } from '../host-controller.ts'
import { createFleet, fleetRecords } from '../membership/create-fleet.ts'
import type { FleetFolder } from '../membership/fleet-folder.ts'
import { ownAddress } from './address.ts'
import { finishBeginning, levelFolder, markBeginning } from './beginning.ts'
import { createEtcdParts } from './etcd-parts.ts'

/** What becoming a fleet needs. */
export interface BecomeFleetComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
}

/** etcd takes about a second; on a busy machine many. */
const etcdStartMs = 60_000

/**
 * Makes a fleet of one out of this single host: its authorities, its etcd, and everything that is
 * in its level store. The daemon's parts are down; guests run on. When it fails, or is killed,
 * before the level store names its successor, the host is a single one still and nothing is lost.
 */
export async function becomeFleet(
  config: Config,
  components: BecomeFleetComponents,
  say: (message: string) => void,
): Promise<void> {
  const { dataDir } = config
  const level = await openLevelStore({ folder: levelFolder(dataDir) }, components)
  try {
    say('making the certificate authorities and an identity')
    await markBeginning(dataDir)
    const fleet = await createFleet(
      {
        ...{ dataDir, machineIdFile: config.machineIdFile, name: config.hostName },
        address: ownAddress(config),
        ...(config.fleet.rack !== undefined && { rack: config.fleet.rack }),
        version: ownVersion(),
        revisionBase: await level.revision(),
      },
      components,
    )
    await enterFleetRecords(level, fleet)
    // What is written from here on, nothing is, would go back before the base.
    const revisionBase = await level.revision()
    const record = { ...fleet.known().fleet, revisionBase }
    await fleet.remember({ fleet: record })
    await moveStore({ config, fleet, level }, components, say)
  } finally {
    await level.close()
    await finishBeginning(dataDir, components.log)
  }
}

/** They move with everything else, so that there is no fleet without them. */
async function enterFleetRecords(level: Store, fleet: FleetFolder): Promise<void> {
  const dropped = [memberPrefix, hostLeasePrefix].map(deletePrefix => ({ deletePrefix }))
  await level.transaction({ compare: [], operations: dropped })
  await level.transaction({ compare: [], operations: fleetRecords(fleet) })
}

async function moveStore(
  { config, fleet, level }: { config: Config; fleet: FleetFolder; level: Store },
  components: BecomeFleetComponents,
  say: (message: string) => void,
): Promise<void> {
  const { log, limits } = components
  const guardian = await keepGuardian(config, components)
  const address = ownAddress(config)
  const etcd = await createEtcdParts({ config, fleet, address }, { ...components, guardian })
  try {
    say('starting etcd')
    const { peerUrl, clientUrl } = etcd
    const init = { name: fleet.identity.name, peerUrl, clientUrl, timeoutMs: etcdStartMs }
    const { clusterId } = await startFirstVoter(init, { ...components, ...etcd })
    say('moving the store')
    const record = fleet.known().fleet
    const { revisionBase } = record
    const to = openEtcdStore({ connection: etcd.connection, revisionBase }, components)
    try {
      const folder = levelFolder(config.dataDir)
      await migrateToEtcd(
        { levelFolder: folder, clusterId, record, limits },
        { from: level, to, log },
      )
    } finally {
      await to.close()
    }
  } catch (error) {
    await etcd.process.stop().catch(second => {
      log.warn({ error: messageOf(second) }, 'etcd could not be ended again')
    })
    throw error
  } finally {
    etcd.connection.close()
    guardian.close()
  }
}
