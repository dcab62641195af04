import type { Clock } from '../../base/clock.ts'
import { type Log, messageOf } from '../../base/log.ts'
import type { EtcdMember } from '../../cluster/etcd/admin.ts'
import { type EtcdSupervisor, startEtcdSupervisor } from '../etcd/etcd-supervisor.ts'
import type { Guardian } from '../guardian/client.ts'
import type { FleetFolder } from '../membership/fleet-folder.ts'
import type { EtcdParts } from './etcd-parts.ts'

/** Whose members are followed. */
export interface VotersInit {
  fleet: FleetFolder
  etcd: EtcdParts
  intervalMs: number
}

/** What following them needs. */
export interface VotersComponents {
  guardian: Guardian
  clock: Clock
  log: Log
}

/** etcd's members as they were last told, and the one of this host kept running. */
export interface Voters {
  list(): readonly EtcdMember[]
  /**
   * Whether a host has a member of etcd, one that is still learning included; undefined while
   * nobody has told.
   */
  isVoter(host: string): boolean | undefined
  /** Client URLs of all members, this host's own first, because it is the nearest. */
  endpoints(): string[]
  onChange(listener: () => void): () => void
  supervisor: EtcdSupervisor
  stop(): Promise<void>
}

/** Looks after this host's etcd, and has the connection go where the members are. */
export function followVoters(init: VotersInit, components: VotersComponents): Voters {
  const { fleet, etcd, intervalMs } = init
  const { log } = components
  const listeners = new Set<() => void>()
  let members: readonly EtcdMember[] = []
  let known = [...fleet.known().etcdEndpoints]

  const tell = (): void => {
    for (const listener of [...listeners]) listener()
  }
  const endpoints = (): string[] => {
    const own = etcd.clientUrl
    return [...known].sort((one, other) => Number(other === own) - Number(one === own))
  }
  const onMembers = (listed: readonly EtcdMember[]): void => {
    const before = members
    members = listed
    // A learner answers nobody but those who ask for itself.
    const voting = listed.filter(({ isLearner }) => !isLearner)
    const next = voting.flatMap(({ clientUrls }) => clientUrls).sort()
    if (before.map(({ id }) => id).join() !== listed.map(({ id }) => id).join()) tell()
    if (next.length === 0 || next.join(' ') === [...known].sort().join(' ')) return
    known = next
    etcd.connection.setEndpoints(endpoints())
    fleet
      .remember({ etcdEndpoints: next })
      .catch(error => log.warn({ error: messageOf(error) }, 'the fleet folder was not written'))
    tell()
  }
  etcd.connection.setEndpoints(endpoints())
  const supervisor = startEtcdSupervisor(
    {
      name: fleet.identity.name,
      peerUrl: etcd.peerUrl,
      clientUrl: etcd.clientUrl,
      intervalMs,
      onMembers,
    },
    { ...components, ...etcd },
  )
  return {
    list: () => members,
    isVoter(host) {
      if (members.length === 0) return undefined
      const member = fleet.known().members.find(({ name }) => name === host)
      return members.some(
        ({ name, peerUrls }) => name === host || peerUrls.some(url => isAt(url, member?.address)),
      )
    },
    endpoints,
    onChange(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    supervisor,
    stop: () => supervisor.stop(),
  }
}

function isAt(url: string, address: { host: string; etcdPeerPort: number } | undefined): boolean {
  if (address === undefined) return false
  const { hostname, port } = new URL(url)
  const host = hostname.replace(/^\[|\]$/g, '')
  return host === address.host && Number(port) === address.etcdPeerPort
}
