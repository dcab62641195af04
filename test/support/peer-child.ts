import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { createLog } from '../../base/log.ts'
import { createMetrics } from '../../base/metrics.ts'
import { systemRandom } from '../../base/random.ts'
import { startGossip } from '../../cluster/gossip/gossip.ts'
import { createAllowList, type PeerMember } from '../../cluster/peers/allow-list.ts'
import { startDiscovery } from '../../cluster/peers/discovery.ts'
import { fleetTagOf } from '../../cluster/peers/fleet-tag.ts'
import { loadIdentity } from '../../cluster/peers/identity.ts'
import { startPeers } from '../../cluster/peers/peers.ts'
import { plainFacts } from './facts.ts'

// One host's peers, gossip and discovery in a process of their own, to be run in a network
// namespace. Its only argument is a `PeerChild` as JSON. It says what happens in lines of JSON,
// until it is killed.

/** What a child is told. */
export interface PeerChild {
  host: string
  /** The secret of its identity, in hex. */
  secret: string
  fleetId: string
  address: string
  peerPort: number
  gossipPort: number
  members: PeerMember[]
}

/** What it says. */
export interface PeerChildLine {
  found?: { address: string; peerPort: number; fleetTag: string }
  hosts?: string[]
  obstacle?: string
}

const say = (line: PeerChildLine): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}
const given: PeerChild = JSON.parse(process.argv[2] ?? '')
const { host, fleetId, address, peerPort, gossipPort } = given
const log = createLog({ level: 'warn' })
const members = createAllowList(given.members)
const common = { clock: systemClock, random: systemRandom, log, limits: defaultLimits, members }
const announce = { peerPort, fleetTag: fleetTagOf(fleetId) }
const discovery = await startDiscovery({ address, announce }, common)
systemClock.setTimer(3_500, () => say({ obstacle: discovery.obstacle() ?? '' }))
if (given.members.length > 0) {
  const identity = loadIdentity(Buffer.from(given.secret, 'hex'))
  const listen = { host: address, port: gossipPort }
  const peers = await startPeers(
    { identity, host, listen, fleetId, era: 1, version: '0.1.0' },
    common,
  )
  const measure = () => plainFacts
  const metrics = createMetrics()
  const { facts } = await startGossip({ fleetId }, { ...common, metrics, peers, measure })
  const tell = (): void => say({ hosts: facts.all().map(known => known.host) })
  facts.onChange(tell)
  tell()
}
for await (const found of discovery.discover(new AbortController().signal)) say({ found })
