import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { networkInterfaces } from 'node:os'
import { failure } from '../../base/errors.ts'
import type { MemberAddress } from '../../cluster/fleet/member.ts'
import type { Config } from '../config.ts'

/**
 * Where the other hosts reach this one: as configured, else by the address of the interface that
 * the default route goes out of.
 * @throws addressUnknown
 */
export function ownAddress({ fleet }: Pick<Config, 'fleet'>): MemberAddress {
  const { peerPort, gossipPort, etcdClientPort, etcdPeerPort, transferPort } = fleet
  const host = fleet.address ?? defaultAddress()
  if (host === undefined || isIP(host) === 0) {
    throw failure('addressUnknown', { detail: host ?? 'there is no default route' })
  }
  return { host, peerPort, gossipPort, etcdClientPort, etcdPeerPort, transferPort }
}

function defaultAddress(): string | undefined {
  const name = defaultInterface()
  const all = networkInterfaces()
  const addresses = name === undefined ? [] : (all[name] ?? [])
  return addresses.find(({ family, internal }) => family === 'IPv4' && !internal)?.address
}

/** From /proc/net/route (proc(5)): a line a route, in hexadecimal; destination 0 is the default. */
function defaultInterface(): string | undefined {
  const lines = readFileSync('/proc/net/route', 'utf8').trim().split('\n').slice(1)
  const routes = lines.map(line => line.split('\t'))
  return routes.find(([, destination, , , , , , mask]) => /^0+$/.test(`${destination}${mask}`))?.[0]
}
