import { join } from 'node:path'
import type { Clock } from '../../base/clock.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import { createEtcdAdmin, type EtcdAdmin } from '../../cluster/etcd/admin.ts'
import { createEtcdConnection, type EtcdConnection } from '../../cluster/etcd/connection.ts'
import type { MemberAddress } from '../../cluster/fleet/member.ts'
import type { Config } from '../config.ts'
import { clientUrlOf, peerUrlOf } from '../etcd/etcd-command.ts'
import { type EtcdFolder, openEtcdFolder } from '../etcd/etcd-folder.ts'
import { createEtcdProcess, type EtcdProcess } from '../etcd/etcd-process.ts'
import type { Guardian } from '../guardian/client.ts'
import type { FleetFolder } from '../membership/fleet-folder.ts'

/** What handling etcd needs. */
export interface EtcdPartsComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
  guardian: Guardian
}

/**
 * etcd, from this host: its own member, if it has one, and the way to whichever members there are.
 */
export interface EtcdParts {
  folder: EtcdFolder
  process: EtcdProcess
  connection: EtcdConnection
  admin: EtcdAdmin
  /** Of the member that this host has, or would have. */
  peerUrl: string
  clientUrl: string
}

/** Room for the store and its history, and for a while of growth before anybody looks. */
const quotaFactor = 4

/**
 * Makes them; nothing is started, and nobody is asked yet. The connection is the caller's to
 * close.
 */
export async function createEtcdParts(
  { config, fleet, address }: { config: Config; fleet: FleetFolder; address: MemberAddress },
  components: EtcdPartsComponents,
): Promise<EtcdParts> {
  const { clock, limits } = components
  const folder = openEtcdFolder(join(config.dataDir, 'etcd'), clock)
  const { etcd, etcdAuthorities } = fleet.paths
  const process = createEtcdProcess(
    {
      program: config.fleet.etcd,
      name: fleet.identity.name,
      address,
      tls: { ca: etcdAuthorities, certificate: etcd, key: etcd },
      quotaBytes: limits.storeBytes * quotaFactor,
      folder,
      logBytes: limits.serialLogBytes,
    },
    components,
  )
  const connection = await createEtcdConnection(
    { endpoints: fleet.known().etcdEndpoints, tls: () => tlsOf(fleet) },
    components,
  )
  const admin = createEtcdAdmin(connection)
  const [peerUrl, clientUrl] = [peerUrlOf(address), clientUrlOf(address)]
  return { folder, process, connection, admin, peerUrl, clientUrl }
}

function tlsOf(fleet: FleetFolder) {
  const { ca, cert, key } = fleet.tls('etcd')
  return { certificateAuthority: ca, certificate: cert, key }
}
