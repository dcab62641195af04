import { assert } from '../../base/errors.ts'
import type { ProcessIdentity } from '../../base/process-identity.ts'

/**
 * One private network of hosts on this machine: `10.NUMBER.0.0/16`. Who made it is part of its
 * name, so that what a process left behind when it was killed can be told from what is in use.
 */
export interface NetworkPlan {
  owner: ProcessIdentity
  /** The second byte of its addresses. */
  number: number
}

/** Hosts of one network: the last byte of their addresses. */
export const hostsMost = 200

/** Racks of one network: the third byte of their addresses. */
export const racksMost = 200

/** The numbers that a network may have: high ones, which few networks at home or work use. */
export const networkNumbers = Array.from({ length: 120 }, (_, index) => 130 + index)

/** The part of a network's name that its router's namespace has after the network's own. */
export const routerPart = 'router'

/** The name that the namespaces of a network and its folder begin with. */
export function networkName({ owner, number }: NetworkPlan): string {
  return `macfleet-${owner.pid}-${owner.startTicks}-${number}`
}

/** The network that a namespace or a folder is of, from its name; undefined for anything else. */
export function parseNetworkName(name: string): NetworkPlan | undefined {
  const found = /^macfleet-(\d+)-(\d+)-(\d+)(-[a-z0-9-]+)?$/.exec(name)
  if (found === null) return undefined
  const [pid, startTicks, number] = found.slice(1, 4).map(Number)
  if (pid === undefined || startTicks === undefined || number === undefined) return undefined
  return { owner: { pid, startTicks }, number }
}

/** The namespace of a host, or of the router (`routerPart`). */
export function namespaceName(plan: NetworkPlan, part: string): string {
  return `${networkName(plan)}-${part}`
}

/**
 * The link from outside, where the user and the tests are. Only one of that name can be: whoever
 * makes it has the number.
 */
export function outsideLink({ number }: NetworkPlan): string {
  return `macfleet${number}`
}

/** The bridge of a rack, and the rack's name. */
export function rackName(rack: number): string {
  return `rack-${rack}`
}

/** All addresses of a network. */
export function networkSubnet({ number }: NetworkPlan): string {
  return `10.${number}.0.0/16`
}

/** The addresses of a rack; rack 0 is what is outside. */
export function rackSubnet({ number }: NetworkPlan, rack: number): string {
  return `10.${number}.${rack}.0/24`
}

/** The router's address in a rack. */
export function gatewayAddress({ number }: NetworkPlan, rack: number): string {
  return `10.${number}.${rack}.254`
}

/** The address of the `host`th host (from 1), which stands in a rack (from 1). */
export function hostAddress({ number }: NetworkPlan, rack: number, host: number): string {
  assert(rack <= racksMost && host <= hostsMost, `no address for host ${host} of rack ${rack}`)
  return `10.${number}.${rack}.${host}`
}

/**
 * The hardware address of a host's link, or of its rack's gateway (host 0): a locally administered
 * one. It has to last: whoever talked to a host that comes back knows it by the one it had, and a
 * bridge would take a new one from its ports whenever these change.
 */
export function hardwareAddress({ number }: NetworkPlan, rack: number, host: number): string {
  const bytes = [0x02, 0x6d, 0x66, number, rack, host]
  return bytes.map(byte => byte.toString(16).padStart(2, '0')).join(':')
}

const firstUser = 1_900_000_000
const usersPerHost = 100

/** User ids for the guests of a host, which no other host of any network here has. */
export function guestUsers({ number }: NetworkPlan, host: number): { first: number; last: number } {
  const first = firstUser + (number * hostsMost + host - 1) * usersPerHost
  return { first, last: first + usersPerHost - 1 }
}
