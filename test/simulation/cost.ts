import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createMetrics } from '../../base/metrics.ts'
import { defaultTiming } from '../../cluster/fleet/timing.ts'
import type { OwnFacts } from '../../cluster/gossip/facts-message.ts'
import { type GossipPeers, startGossip } from '../../cluster/gossip/gossip.ts'
import { createAllowList } from '../../cluster/peers/allow-list.ts'
import { Actor, MachineClocks } from './actor.ts'
import { simulate } from './simulate.ts'
import { type Chance, World } from './world.ts'

/** Gossipsub's mesh, as its defaults have it: so many neighbours pass each message on. */
const meshDegree = 6
/** What gossipsub puts around the data: keys, signature, topic, lengths (cluster/peers/topics.ts). */
const overheadBytes = 164 + 48
const spokenMs = 600_000
const sizes = [100, 1_000, 10_000]

/** What a host pays in fleets of several sizes, as a table for people. */
export async function costReport(): Promise<string> {
  const chance = new World(1).chance
  const { perSecond, bytes } = await listenToOne(chance)
  const rows = sizes.map(hosts => {
    const { copies, hops } = flood(hosts, chance)
    const messages = perSecond * hosts
    const received = messages * copies
    const kilobytes = (received * bytes) / 1_000
    return [
      String(hosts),
      messages.toFixed(0),
      received.toFixed(0),
      kilobytes.toFixed(0),
      String(hops),
      ((2 * hosts * 1_000) / defaultTiming.renewalPeriodMs).toFixed(0),
    ]
  })
  const head = ['hosts', 'said/s', 'received/s', 'kB/s', 'hops', 'lease requests/s to etcd']
  const table = [head, ...rows].map(row => row.map(text => text.padStart(12)).join(' '))
  const { transactions, decisions, acknowledged } = await simulate({ seed: 1, hosts: 30 })
  const each = (count: number): string => (count / Math.max(1, acknowledged)).toFixed(1)
  return [
    `A host says ${perSecond.toFixed(2)} messages/s of ${bytes} bytes; each is received over a mesh`,
    `of degree ${meshDegree}. Received counts every copy; a host sends about as much as it receives.`,
    ...table,
    `Under faults, with 30 hosts, a machine costs ${each(transactions)} transactions in its life,`,
    `each an event for every host that watches it, of which ${each(decisions)} are the leader's.`,
  ].join('\n')
}

/** The real speaker on a virtual clock, on a host whose load wanders. */
async function listenToOne(chance: Chance): Promise<{ perSecond: number; bytes: number }> {
  const world = new World(1)
  const actor = new Actor('host', world, new MachineClocks(world, 1, 0))
  const { clock } = actor
  let said = 0
  let bytes = 0
  const peers: GossipPeers = {
    peerId: 'host',
    connected: () => [],
    onConnected: () => () => {},
    request: async () => new Uint8Array(),
    handle: async () => {},
    isGenuine: () => true,
    join: () => ({
      async publish(data) {
        said++
        bytes = Math.max(bytes, data.length + overheadBytes)
      },
      leave: () => {},
    }),
  }
  let cpuFraction = 0.5
  const amounts = { cpu: 8, memoryBytes: 32e9, diskBytes: 500e9, machines: 64 }
  const measure = (): OwnFacts => {
    cpuFraction = Math.min(1, Math.max(0, cpuFraction + chance.between(-0.03, 0.03)))
    return {
      ...{ version: '0.1.0', ready: true, allocatable: amounts, reserved: amounts },
      ...{ cpuFraction, load1: 4, memoryUsedBytes: 4e9, diskFreeBytes: 400e9, imageDigests: [] },
    }
  }
  const { random } = chance
  const members = createAllowList()
  const gossip = await startGossip(
    { fleetId: 'cost' },
    {
      ...{ clock, random, log: silentLog, limits: defaultLimits, metrics: createMetrics() },
      ...{ members, peers, measure },
    },
  )
  await world.run(spokenMs)
  gossip.stop()
  return { perSecond: said / (spokenMs / 1_000), bytes }
}

/**
 * A message over a mesh of virtual peers: who gets it first passes it on to all neighbours but the
 * one that it came from.
 */
function flood(hosts: number, chance: Chance): { copies: number; hops: number } {
  const neighbours = Array.from({ length: hosts }, () => new Set<number>())
  for (let host = 0; host < hosts; host++) {
    for (let tries = 0; (neighbours[host]?.size ?? 0) < meshDegree && tries < 100; tries++) {
      const other = chance.integer(hosts)
      if (other === host || (neighbours[other]?.size ?? 0) > meshDegree) continue
      neighbours[host]?.add(other)
      neighbours[other]?.add(host)
    }
  }
  const reached = new Map([[0, 0]])
  let copies = 0
  const queue: { host: number; from: number }[] = [{ host: 0, from: -1 }]
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    for (const other of neighbours[next.host] ?? []) {
      if (other === next.from) continue
      copies++
      if (reached.has(other)) continue
      reached.set(other, (reached.get(next.host) ?? 0) + 1)
      queue.push({ host: other, from: next.host })
    }
  }
  return { copies: copies / hosts, hops: Math.max(...reached.values()) }
}
