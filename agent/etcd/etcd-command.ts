import { etcdServerFlags } from '../../cluster/etcd/server-flags.ts'
import type { EtcdFolder } from './etcd-folder.ts'

/** The files of one certificate that serves as server and client, for etcd's peers and clients. */
export interface EtcdTlsFiles {
  /** The CA's certificate; whoever shows one of its certificates may do anything with etcd. */
  ca: string
  certificate: string
  key: string
}

/** What etcd on this host is like. */
export interface EtcdCommandInit {
  /** The program. */
  program: string
  /** The member's name: the host's. */
  name: string
  /** An IP address, with the ports that it listens on. */
  address: { host: string; etcdClientPort: number; etcdPeerPort: number }
  tls: EtcdTlsFiles
  /** Bytes of etcd's database from which on it refuses writes (--quota-backend-bytes). */
  quotaBytes: number
}

/** How a member without data begins. */
export interface InitialCluster {
  /** `new`: it is the first one. `existing`: it was added to the cluster of the others. */
  state: 'new' | 'existing'
  /** All members, itself included, with their peer URLs. */
  members: readonly { name: string; peerUrl: string }[]
  /**
   * For a new cluster: unlike any used before. etcd makes its ids from it and the URLs, and two
   * clusters with equal ids would take each other's messages.
   */
  token: string
}

/**
 * etcd's own default keeps ten times as many changes in memory; a follower that is further behind
 * than this gets the whole state instead.
 */
const snapshotCount = 10_000
/**
 * History is kept for watchers that come back within so long; etcd drops what is older, at the
 * latest after twice that. It does so by itself, on whichever member leads.
 */
const historyKept = '5m'

/** The URL by which the other members know a host, as it stands in etcd's member list. */
export function peerUrlOf(address: { host: string; etcdPeerPort: number }): string {
  return urlOf(address.host, address.etcdPeerPort)
}

/** The URL by which clients reach the member of a host. */
export function clientUrlOf(address: { host: string; etcdClientPort: number }): string {
  return urlOf(address.host, address.etcdClientPort)
}

function urlOf(host: string, port: number): string {
  return `https://${host.includes(':') ? `[${host}]` : host}:${port}`
}

/**
 * etcd's arguments. How it begins is not among them (see initialEnvironment): they are the same
 * for the whole life of a member, so that a running one can be told to be as wanted.
 */
export function etcdArguments(init: EtcdCommandInit, folder: EtcdFolder): string[] {
  const { address, tls } = init
  const clientUrl = clientUrlOf(address)
  const local = clientUrlOf({ ...address, host: '127.0.0.1' })
  const options: Record<string, string | number> = {
    name: init.name,
    'data-dir': folder.data,
    'listen-peer-urls': peerUrlOf(address),
    'initial-advertise-peer-urls': peerUrlOf(address),
    'listen-client-urls': [...new Set([clientUrl, local])].join(),
    'advertise-client-urls': clientUrl,
    'cert-file': tls.certificate,
    'key-file': tls.key,
    'trusted-ca-file': tls.ca,
    'client-cert-auth': 'true',
    'peer-cert-file': tls.certificate,
    'peer-key-file': tls.key,
    'peer-trusted-ca-file': tls.ca,
    'peer-client-cert-auth': 'true',
    'strict-reconfig-check': 'true',
    'quota-backend-bytes': init.quotaBytes,
    'snapshot-count': snapshotCount,
    'auto-compaction-mode': 'periodic',
    'auto-compaction-retention': historyKept,
    logger: 'zap',
    'log-outputs': folder.log,
    'log-level': 'warn',
  }
  const own = Object.entries(options).map(([name, value]) => `--${name}=${value}`)
  return [...own, ...etcdServerFlags]
}

/** How a member without data begins, as etcd takes it from its environment. */
export function initialEnvironment({ state, members, token }: InitialCluster) {
  return {
    ETCD_INITIAL_CLUSTER_STATE: state,
    ETCD_INITIAL_CLUSTER: members.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(),
    ETCD_INITIAL_CLUSTER_TOKEN: token,
  }
}
