import { readdirSync } from 'node:fs'
import type { Clock } from '../../base/clock.ts'
import type { CommandRunner } from '../../base/command.ts'
import { failure, messageOf } from '../../base/errors.ts'
import { identify } from '../../base/process-identity.ts'
import {
  gatewayAddress,
  hardwareAddress,
  hostAddress,
  type NetworkPlan,
  namespaceName,
  networkName,
  networkNumbers,
  networkSubnet,
  outsideLink,
  parseNetworkName,
  rackName,
  routerPart,
} from './plan.ts'
import { killAll, namespaceFolder, namespaceInode } from './processes.ts'

/** What making namespaces needs. */
export interface NetworkComponents {
  run: CommandRunner
  clock: Clock
}

/** Where a host stands. */
export interface Place {
  /** From 1; also the last byte of its address. */
  number: number
  name: string
  /** From 1. */
  rack: number
}

/** The name that a host's only link has inside its namespace. */
export const hostLink = 'eth0'
const outsidePeer = 'outside'
const timeoutMs = 10_000

/** Runs lines of ip(8), in a namespace or in ours. @throws commandFailed at the first that fails */
export async function runIp(
  lines: readonly string[],
  { run }: Pick<NetworkComponents, 'run'>,
  namespace?: string,
): Promise<void> {
  const where = namespace === undefined ? [] : ['-n', namespace]
  await run('ip', [...where, '-batch', '-'], { timeoutMs, input: `${lines.join('\n')}\n` })
}

/**
 * Makes the router of a new network, its racks and the way to it from outside. The router has no
 * way out, so nothing that hosts and guests send leaves this machine; and it passes no multicast.
 * @throws devNeedsRoot, devFailed, commandMissing, commandFailed
 */
export async function makeNetwork(
  racks: number,
  components: NetworkComponents,
): Promise<NetworkPlan> {
  if (process.getuid?.() !== 0) throw failure('devNeedsRoot', {})
  const plan = await claimNumber(components)
  const router = namespaceName(plan, routerPart)
  try {
    const forward = 'echo 1 > /proc/sys/net/ipv4/ip_forward'
    await components.run('ip', ['netns', 'exec', router, 'sh', '-c', forward], { timeoutMs })
    const bridges = Array.from({ length: racks }, (_, index) => index + 1).flatMap(rack => [
      // Without a querier, a bridge that looks at group memberships forgets them after minutes.
      `link add ${rackName(rack)} type bridge mcast_snooping 0`,
      `link set ${rackName(rack)} address ${hardwareAddress(plan, rack, 0)}`,
      `address add ${gatewayAddress(plan, rack)}/24 dev ${rackName(rack)}`,
      `link set ${rackName(rack)} up`,
    ])
    const own = [
      'link set lo up',
      `address add ${gatewayAddress(plan, 0)}/24 dev ${outsidePeer}`,
      `link set ${outsidePeer} up`,
    ]
    await runIp([...own, ...bridges], components, router)
    const outside = [
      `address add ${hostAddress(plan, 0, 1)}/24 dev ${outsideLink(plan)}`,
      `link set ${outsideLink(plan)} up`,
      `route add ${networkSubnet(plan)} via ${gatewayAddress(plan, 0)}`,
    ]
    await runIp(outside, components)
    return plan
  } catch (error) {
    await removeNetwork(plan, components)
    throw error
  }
}

/** Finds addresses that nobody uses. The link from outside is what holds them: its name is one. */
async function claimNumber(components: NetworkComponents): Promise<NetworkPlan> {
  const owner = identify(process.pid)
  if (owner === undefined) throw failure('devFailed', { detail: 'this process has no identity' })
  const { stdout } = await components.run('ip', ['-4', 'route', 'show'], { timeoutMs })
  for (const number of networkNumbers) {
    if (stdout.includes(`10.${number}.`)) continue
    const plan = { owner, number }
    const router = namespaceName(plan, routerPart)
    const peer = `peer name ${outsidePeer} netns ${router}`
    try {
      await runIp([`netns add ${router}`], components)
      await runIp([`link add ${outsideLink(plan)} type veth ${peer}`], components)
      return plan
    } catch (error) {
      await runIp([`netns delete ${router}`], components).catch(() => {})
      if (!messageOf(error).includes('File exists')) throw error
    }
  }
  throw failure('devFailed', { detail: 'all of its networks, 10.130.0.0/16 and on, are in use' })
}

/** Puts a host into its rack: a namespace of its own with one link. @throws commandFailed */
export async function plugIn(
  plan: NetworkPlan,
  { name, rack, number }: Place,
  components: NetworkComponents,
): Promise<void> {
  const namespace = namespaceName(plan, name)
  const router = namespaceName(plan, routerPart)
  const address = hardwareAddress(plan, rack, number)
  const own = `${hostLink} address ${address} netns ${namespace}`
  const link = `link add ${own} type veth peer name ${name} netns ${router}`
  await runIp([`netns add ${namespace}`, link], components)
  await runIp([`link set ${name} master ${rackName(rack)} up`], components, router)
  const inside = [
    'link set lo up',
    `address add ${hostAddress(plan, rack, number)}/24 dev ${hostLink}`,
    `link set ${hostLink} up`,
    `route add default via ${gatewayAddress(plan, rack)}`,
    // Where no route covers it, mDNS finds nothing and says nothing.
    `route add 224.0.0.0/4 dev ${hostLink}`,
  ]
  await runIp(inside, components, namespace)
}

/** Pulls a host's cable: nothing goes out any more, not even the goodbyes of connections. */
export async function unplug(
  plan: NetworkPlan,
  name: string,
  components: NetworkComponents,
): Promise<void> {
  await runIp([`link set ${name} down`], components, namespaceName(plan, routerPart))
}

/** Kills all that runs in a host's namespace and removes it with its link. */
export async function removeNamespace(
  plan: NetworkPlan,
  name: string,
  components: NetworkComponents,
): Promise<void> {
  const namespace = namespaceName(plan, name)
  if (namespaceInode(namespace) === undefined) return
  await killAll([namespace], components.clock)
  // A namespace is taken down some time after it lost its name; its link has to be gone now.
  const router = namespaceName(plan, routerPart)
  await runIp([`link delete ${name}`], components, router)
  await runIp([`netns delete ${namespace}`], components)
}

/** Removes a network and all that runs in it; nothing to do when there is none. */
export async function removeNetwork(
  plan: NetworkPlan,
  components: NetworkComponents,
): Promise<void> {
  const ours = `${networkName(plan)}-`
  const namespaces = namespacesNow().filter(name => name.startsWith(ours))
  await killAll(namespaces, components.clock)
  const router = namespaceName(plan, routerPart)
  if (namespaces.includes(router)) {
    // By its other end: the name outside may be another network's by now. Takes the route along.
    await runIp([`link delete ${outsidePeer}`], components, router).catch(() => {})
  }
  await runIp(
    namespaces.map(name => `netns delete ${name}`),
    components,
  )
}

/** All networks of this kind on this machine, whoever made them. */
export function networksNow(): NetworkPlan[] {
  const found = namespacesNow()
    .map(parseNetworkName)
    .filter(plan => plan !== undefined)
  return [...new Map(found.map(plan => [networkName(plan), plan])).values()]
}

function namespacesNow(): string[] {
  try {
    return readdirSync(namespaceFolder)
  } catch {
    return []
  }
}
