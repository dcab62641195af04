import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createMetrics } from '../../base/metrics.ts'
import { systemRandom } from '../../base/random.ts'
import type { OwnFacts } from '../../cluster/gossip/facts-message.ts'
import { type Gossip, startGossip } from '../../cluster/gossip/gossip.ts'
import {
  createAllowList,
  type PeerMember,
  type SettableAllowList,
} from '../../cluster/peers/allow-list.ts'
import { createIdentity } from '../../cluster/peers/identity.ts'
import { startPeers } from '../../cluster/peers/peers.ts'
import { plainFacts } from './facts.ts'

// Several hosts of a fleet in one process, on loopback, for the bench of gossip. The parent says what
// to do by messages, and is told when it is so; times are wall times, which all processes share.

/** What the parent says. */
export type Order =
  | { start: string[] }
  | { members: PeerMember[] }
  /** All hosts here are to know so many. */
  | { awaitKnown: number }
  /** A host says something new of itself. */
  | { change: string; load1: number }
  /** All hosts here are to know of it. */
  | { awaitChange: string; load1: number }

/** What a child answers, when it is so. */
export interface Report {
  started?: PeerMember[]
  /** When the last of the hosts here knew. */
  atMs?: number
  /** When each of them did. */
  eachMs?: number[]
}

interface Node {
  host: string
  members: SettableAllowList
  gossip: Gossip
  own: OwnFacts
}

const nodes: Node[] = []
const fleetId = 'bench'

async function startNode(host: string): Promise<PeerMember> {
  const identity = createIdentity(systemRandom)
  const members = createAllowList()
  const limits = defaultLimits
  const components = { clock: systemClock, random: systemRandom, log: silentLog, limits, members }
  const listen = { host: '127.0.0.1', port: 0 }
  const init = { identity, host, listen, fleetId, era: 1, version: '0.1.0' }
  const peers = await startPeers(init, components)
  const node = { host, members, own: { ...plainFacts } } as Node
  const measure = (): OwnFacts => node.own
  const metrics = createMetrics()
  node.gossip = await startGossip({ fleetId }, { ...components, metrics, peers, measure })
  nodes.push(node)
  return {
    name: host,
    peerId: peers.peerId,
    address: { host: '127.0.0.1', gossipPort: peers.port },
  }
}

/** When each host came to know something, in wall time. */
async function whenAll(isSo: (node: Node) => boolean): Promise<number[]> {
  return Promise.all(
    nodes.map(
      node =>
        new Promise<number>(resolve => {
          const check = (): boolean => {
            if (isSo(node)) resolve(systemClock.wallMs())
            return isSo(node)
          }
          if (check()) return
          const end = node.gossip.facts.onChange(() => {
            if (check()) end()
          })
        }),
    ),
  )
}

async function obey(order: Order): Promise<Report> {
  if ('start' in order) return { started: await Promise.all(order.start.map(startNode)) }
  if ('members' in order) {
    for (const node of nodes) node.members.set(order.members)
    return {}
  }
  if ('change' in order) {
    for (const node of nodes.filter(({ host }) => host === order.change)) {
      node.own = { ...plainFacts, load1: order.load1 }
      node.gossip.changed()
    }
    return { atMs: systemClock.wallMs() }
  }
  const eachMs = await whenAll(({ gossip: { facts } }) =>
    'awaitKnown' in order
      ? facts.all().length >= order.awaitKnown
      : facts.of(order.awaitChange)?.load1 === order.load1,
  )
  return { atMs: Math.max(...eachMs), eachMs }
}

process.on('message', (order: Order) => {
  void obey(order).then(report => process.send?.(report))
})
