import { join } from 'node:path'
import type { Clock } from '../../base/clock.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import type { EtcdAdmin, EtcdMember } from '../../cluster/etcd/admin.ts'
import type { MemberAddress } from '../../cluster/fleet/member.ts'
import type { Guardian } from '../guardian/client.ts'
import { clientUrlOf, type EtcdTlsFiles, peerUrlOf } from './etcd-command.ts'
import { type MemberIdentity, openEtcdFolder } from './etcd-folder.ts'
import { createEtcdProcess } from './etcd-process.ts'
import { type EtcdSupervisor, startEtcdSupervisor } from './etcd-supervisor.ts'
import { startFirstVoter } from './first-voter.ts'

/** etcd's place on one host. */
export interface EtcdHostInit {
  /** The host's name, also that of its member. */
  name: string
  address: Pick<MemberAddress, 'host' | 'etcdClientPort' | 'etcdPeerPort'>
  /** `<dataDir>/fleet`, 0700. */
  fleetFolder: string
  /** The program. */
  program: string
  tls: EtcdTlsFiles
}

/** What etcd on a host needs. */
export interface EtcdHostComponents {
  guardian: Guardian
  admin: EtcdAdmin
  clock: Clock
  random: Random
  log: Log
  limits: Limits
}

/** How the supervisor is started. */
export interface SuperviseOptions {
  /** See EtcdSupervisorInit. */
  clusterId?: string
  onMembers?(members: readonly EtcdMember[]): void
  /** Between two looks at the member list; 2 s by default. */
  intervalMs?: number
}

/** All that a daemon does with etcd on its own host. */
export interface EtcdHost {
  peerUrl: string
  clientUrl: string
  /**
   * Starts an empty etcd with this host as the only voter (see startFirstVoter). Not while it is
   * supervised.
   */
  startFirst(): Promise<MemberIdentity>
  /** Runs etcd here exactly when its member list says so, until it is stopped. */
  supervise(options: SuperviseOptions): EtcdSupervisor
  /** Ends etcd and sets its data aside: the host has left the fleet. Not while it is supervised. */
  leave(): Promise<void>
}

const firstMs = 30_000
const superviseMs = 2_000

/** Makes the handle; nothing is started. */
export function openEtcdHost(init: EtcdHostInit, components: EtcdHostComponents): EtcdHost {
  const { name, address } = init
  const { limits, clock } = components
  const folder = openEtcdFolder(join(init.fleetFolder, 'etcd'), clock)
  const process = createEtcdProcess(
    { ...init, folder, quotaBytes: limits.etcdQuotaBytes, logBytes: limits.etcdLogBytes },
    components,
  )
  const urls = { peerUrl: peerUrlOf(address), clientUrl: clientUrlOf(address) }
  const shared = { ...components, process, folder }
  return {
    ...urls,
    startFirst: () => startFirstVoter({ name, ...urls, timeoutMs: firstMs }, shared),
    supervise: options =>
      startEtcdSupervisor({ name, ...urls, intervalMs: superviseMs, ...options }, shared),
    async leave() {
      await process.stop()
      await folder.retire()
    },
  }
}
