import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { failure } from '../../base/errors.ts'
import { fingerprintOf } from '../../cluster/membership/authority.ts'
import { decodeToken } from '../../cluster/membership/token-text.ts'
import { startDiscovery } from '../../cluster/peers/discovery.ts'
import type { Config } from '../config.ts'
import { endProcess } from '../etcd/end-etcd.ts'
import { openEtcdFolder } from '../etcd/etcd-folder.ts'
import { etcdProcessName } from '../etcd/etcd-name.ts'
import { keepGuardian } from '../guardian-keeper.ts'
import { ownVersion } from '../host-controller.ts'
import type { FleetFolder } from '../membership/fleet-folder.ts'
import { foldersOf, replaceMembership } from '../membership/folder-files.ts'
import { askToJoin } from '../membership/join-fleet.ts'
import { ownAddress } from './address.ts'
import type { JoinWorkComponents } from './join-work.ts'
import type { TransitionWork } from './transitions.ts'

/** Which host comes back, and by which token. */
export interface RejoinWorkInit {
  config: Config
  fleet: FleetFolder
  token: string
}

/**
 * Lets a host back into its own fleet, which was restored from a backup meanwhile. Its guests run
 * on: they beat what the backup says of them. What it had of the old store is set aside.
 * @throws tokenMalformed; inFleetAlready when the token is of the fleet as this host knows it
 */
export function rejoinWork(
  { config, fleet, token }: RejoinWorkInit,
  components: JoinWorkComponents,
): TransitionWork {
  const { clock, log } = components
  const { dataDir, machineIdFile } = config
  const { name, fleetId } = fleet.identity
  const { authorities, fleet: record } = fleet.known()
  const refused = () => failure('inFleetAlready', { host: name })
  const { fingerprint } = decodeToken(token)
  if (authorities.trusted.some(({ hosts }) => fingerprintOf(hosts) === fingerprint)) throw refused()
  const address = ownAddress(config)
  const { rack } = config.fleet
  return {
    kind: 'join',
    message: 'looking for a host of the restored fleet',
    async prepare(say, signal) {
      const discovery = await startDiscovery({ address: address.host }, components)
      const init = {
        ...{ dataDir, machineIdFile, name, address, version: ownVersion(), token },
        ...(rack !== undefined && { rack }),
        discover: discovery.discover,
        onWaiting: () => say(`waiting for \`macfleet host approve ${name}\``),
        accept(hello: { fleetId: string; era: number }) {
          if (hello.fleetId !== fleetId || hello.era <= record.era) throw refused()
        },
      }
      await askToJoin(init, components, signal).finally(() => discovery.stop())
    },
    async change(say) {
      say('joining the restored fleet')
      const guardian = await keepGuardian(config, components)
      await endProcess(etcdProcessName, guardian, clock).finally(() => guardian.close())
      await openEtcdFolder(join(dataDir, 'etcd'), clock).retire()
      const folders = foldersOf(dataDir)
      await replaceMembership(folders)
      await rm(folders.old, { recursive: true, force: true })
      log.info({ fleetId }, 'this host is back in its fleet, which was restored')
    },
  }
}
