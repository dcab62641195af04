import { onTestFinished } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits, type Limits } from '../../base/limits.ts'
import { type Log, silentLog } from '../../base/log.ts'
import { createMetrics } from '../../base/metrics.ts'
import { systemRandom } from '../../base/random.ts'
import type { OwnFacts } from '../../cluster/gossip/facts-message.ts'
import { type Gossip, startGossip } from '../../cluster/gossip/gossip.ts'
import {
  createAllowList,
  type PeerMember,
  type SettableAllowList,
} from '../../cluster/peers/allow-list.ts'
import { createIdentity, type Identity } from '../../cluster/peers/identity.ts'
import { type Peers, startPeers } from '../../cluster/peers/peers.ts'
import { plainFacts } from './facts.ts'

/** One host among peers, all in this process, on loopback. */
export interface TestPeer {
  host: string
  identity: Identity
  members: SettableAllowList
  member: PeerMember
  peers: Peers
  gossip?: Gossip
  /** What it measures; to be changed by the test. */
  own: OwnFacts
}

/** How a peer of a test differs from others. */
export interface TestPeerInit {
  host: string
  identity?: Identity
  fleetId?: string
  era?: number
  rack?: string
  limits?: Partial<Limits>
  log?: Log
  /** Started with gossip or without. */
  gossip?: boolean
  wallMs?: number
}

/** Starts a host that knows nobody yet; it is stopped with the test. */
export async function startTestPeer(init: TestPeerInit): Promise<TestPeer> {
  const { host, rack, log = silentLog } = init
  const identity = init.identity ?? createIdentity(systemRandom)
  const members = createAllowList()
  const limits = { ...defaultLimits, ...init.limits }
  const { wallMs } = init
  const clock = wallMs === undefined ? systemClock : { ...systemClock, wallMs: () => wallMs }
  const components = { clock, random: systemRandom, log, limits, members }
  const fleetId = init.fleetId ?? 'fleet-of-the-test'
  const peers = await startPeers(
    {
      identity,
      host,
      listen: { host: '127.0.0.1', port: 0 },
      fleetId,
      era: init.era ?? 1,
      version: '0.1.0',
    },
    components,
  )
  const member: PeerMember = {
    name: host,
    peerId: identity.peerId,
    address: { host: '127.0.0.1', gossipPort: peers.port },
    ...(rack === undefined ? {} : { rack }),
  }
  const peer: TestPeer = { host, identity, members, member, peers, own: { ...plainFacts } }
  if (init.gossip !== false) {
    const metrics = createMetrics()
    const measure = (): OwnFacts => peer.own
    peer.gossip = await startGossip({ fleetId }, { ...components, metrics, peers, measure })
  }
  onTestFinished(() => stopTestPeer(peer))
  return peer
}

/** Stops a host; a second time does nothing. */
export async function stopTestPeer({ gossip, peers }: TestPeer): Promise<void> {
  gossip?.stop()
  await peers.stop()
}

/** Makes these the members of the fleet, as each of them sees it. */
export function introduce(...peers: TestPeer[]): void {
  for (const { members } of peers) members.set(peers.map(({ member }) => member))
}

/** Waits until it is so. */
export async function eventually(
  what: string,
  isSo: () => boolean | Promise<boolean>,
  withinMs = 10_000,
): Promise<void> {
  const endMs = performance.now() + withinMs
  while (!(await isSo())) {
    if (performance.now() > endMs) throw new Error(`not within ${withinMs} ms: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}
