import { createHash } from 'node:crypto'
import { longestRestartMs } from '../../agent/machine/record.ts'
import { fleetKey, memberKey } from '../../cluster/fleet/keys.ts'
import { defaultTiming, type Timing } from '../../cluster/fleet/timing.ts'
import { createObjects } from '../../cluster/objects.ts'
import type { Amounts } from '../../resources/host.ts'
import { namespaceKind } from '../../resources/namespace.ts'
import { Actor, MachineClocks } from './actor.ts'
import { Books } from './books.ts'
import { Etcd } from './etcd.ts'
import { Faults } from './faults.ts'
import { Guests } from './guests.ts'
import { SimulatedHost } from './host.ts'
import { Load } from './load.ts'
import { findUnsettled } from './settled.ts'
import { type Chance, type StoryLine, World } from './world.ts'

/** What is broken on purpose, to see that the simulation finds it. */
export interface Sabotage {
  timing?: Partial<Timing>
  /** Fencing kills nobody. */
  spares?: boolean
  /** Etcd does not look at the leader's key. */
  dropsFence?: boolean
}

/** One run. */
export interface SimulationInit {
  seed: number
  hosts: number
  /** Virtual time with faults and load, in milliseconds. */
  forMs?: number
  sabotage?: Sabotage
  /** Only leaders are cut off, each time with much to decide on its way. */
  onlyLeadersFail?: boolean
}

/** How it went. */
export interface SimulationResult {
  seed: number
  /** What was violated, and about whom. */
  violation: { message: string; subjects: readonly string[] } | undefined
  story: readonly StoryLine[]
  /** A digest of the story: the same for the same seed. */
  trace: string
  virtualMs: number
  events: number
  faults: number
  acknowledged: number
  transactions: number
  decisions: number
  /** From the end of the faults until all was as wanted, in milliseconds. */
  settledMs: number | undefined
}

const GiB = 2 ** 30
const beginMs = 8_000
/** When the faults have ended all is as wanted within this, but for waits between restarts. */
const settleMostMs = 90_000
const zones = ['a', 'b']

/** Runs one seed. */
export async function simulate(init: SimulationInit): Promise<SimulationResult> {
  const { seed, hosts: count, forMs = 90_000, sabotage = {} } = init
  const world = new World(seed)
  const timing = { ...defaultTiming, ...sabotage.timing }
  const names = Array.from({ length: count }, (_, index) => `h${index + 1}`)
  const allocatable = new Map(names.map(name => [name, pickAmounts(world.chance)]))
  const books = new Books(world, allocatable)
  const guests = new Guests(world)
  const rate = 1 + world.chance.between(-0.0049, 0.0049)
  const etcd = new Etcd(
    {
      rate,
      dropsFence: sabotage.dropsFence ?? false,
      onEffect: effect => books.take(effect),
    },
    world,
  )
  await prepare(world, etcd, names)
  const hosts = names.map(
    (name, index) =>
      new SimulatedHost(
        {
          name,
          timing,
          allocatable: allocatable.get(name) ?? pickAmounts(world.chance),
          labels: { zone: zones[index % zones.length] ?? '' },
          spares: sabotage.spares ?? false,
          onFenced: (host, uid) => checkFenced(world, host, uid, timing),
        },
        { world, etcd, guests },
      ),
  )
  for (const host of hosts) world.after(world.chance.between(0, 2_000), () => host.powerOn())
  const load = new Load({ hosts: names, zones, machinesMost: 5 * count }, { world, etcd, books })
  const faults = new Faults({ world, etcd, guests, hosts, timing })
  await world.run(beginMs)
  load.start()
  if (init.onlyLeadersFail === true) cutLeaders(world, hosts, books, load)
  else faults.start()
  if (count > 3 && world.chance.happens(0.3)) loseForGood(world, world.chance.pick(hosts), load)
  await world.run(forMs)
  load.stop()
  faults.heal()
  const settledMs = await settle(world, { books, guests, hosts })
  checkAcknowledged(world, load, books)
  const hash = createHash('sha256')
  for (const { atMs, who, text } of world.story) hash.update(`${atMs} ${who} ${text}\n`)
  return {
    seed,
    violation: world.violation,
    story: world.story,
    trace: hash.digest('hex'),
    virtualMs: world.nowMs,
    events: world.events,
    faults: faults.count,
    acknowledged: load.acknowledged.size,
    transactions: books.count,
    decisions: books.decisions,
    settledMs,
  }
}

function pickAmounts(chance: Chance): Amounts {
  const cpu = chance.pick([2, 4, 8])
  return { cpu, memoryBytes: cpu * 2 * GiB, diskBytes: 0, machines: 16 }
}

/** What membership would have written. */
async function prepare(world: World, etcd: Etcd, names: readonly string[]): Promise<void> {
  const { clock } = new Actor('setup', world, new MachineClocks(world, 1, 0))
  const { random } = world.chance.fork()
  const objects = createObjects({}, { store: etcd.store, clock, random })
  const metadata = { name: 'default' }
  await objects.create(namespaceKind, { apiVersion: 'v1', kind: 'Namespace', metadata })
  const record = { fleetId: 'simulated', era: 1, revisionBase: 0, createdAt: '' }
  await etcd.store.transaction({ compare: [], operations: [{ put: fleetKey, value: record }] })
  const operations = names.map(name => ({
    put: memberKey(name),
    value: { name, state: 'Approved' },
  }))
  for (let at = 0; at < operations.length; at += 100) {
    await etcd.store.transaction({ compare: [], operations: operations.slice(at, at + 100) })
  }
}

/** Fencing may end a guest only when its host was outside of what is promised. */
function checkFenced(world: World, host: SimulatedHost, uid: string, timing: Timing): void {
  const { nowMs } = world
  const { daemonSilenceMs, fenceMs } = timing
  world.tell(host.name, `fencing ends ${uid}`)
  const downSinceMs = host.daemonDownSinceMs ?? nowMs
  const missesDaemon = nowMs - downSinceMs > daemonSilenceMs * 0.9
  if (missesDaemon || host.impairedUntilMs + fenceMs + 2_000 >= nowMs) return
  world.violate(`fencing ended ${uid} on ${host.name}, which was healthy`, [uid, host.name])
}

/** One host is lost for ever; perhaps somebody says so. */
function loseForGood(world: World, host: SimulatedHost, load: Load): void {
  world.after(world.chance.between(5_000, 40_000), () => {
    host.powerOff()
    host.isForgotten = true
    host.impairedUntilMs = Number.POSITIVE_INFINITY
    world.tell(host.name, 'is lost for good')
    if (world.chance.happens(0.5)) {
      world.after(world.chance.between(1_000, 40_000), () => load.forget(host.name))
    }
  })
}

/**
 * Each leader is cut off while it decides; who leads then decides otherwise, and what the old one
 * sent arrives after that.
 */
function cutLeaders(world: World, hosts: readonly SimulatedHost[], books: Books, load: Load): void {
  const leader = hosts.find(({ name }) => name === books.leader)
  const forMs = world.chance.between(3_000, 7_000)
  if (leader !== undefined) {
    world.tell(leader.name, 'leads and is cut off')
    leader.link.cut('out')
    leader.impairedUntilMs = Math.max(leader.impairedUntilMs, world.nowMs + forMs)
    world.after(50, () => load.burst(5, 0))
    world.after(900, () => load.burst(20, 10))
    world.after(forMs, () => leader.link.heal())
  }
  world.after(forMs + 3_000, () => cutLeaders(world, hosts, books, load))
}

/** Waits until all is as wanted. @returns how long that took */
async function settle(
  world: World,
  fleet: Parameters<typeof findUnsettled>[0],
): Promise<number | undefined> {
  const sinceMs = world.nowMs
  let mostMs = settleMostMs
  for (const { disk, clocks } of fleet.hosts) {
    for (const { notBeforeMs = 0 } of disk.values()) {
      const waitMs = Math.min(longestRestartMs, notBeforeMs - clocks.wallMs())
      mostMs = Math.max(mostMs, settleMostMs + waitMs)
    }
  }
  for (;;) {
    await world.run(1_000)
    if (world.violation !== undefined) return undefined
    const unsettled = findUnsettled(fleet)
    if (unsettled.length === 0) return world.nowMs - sinceMs
    if (world.nowMs - sinceMs <= mostMs) continue
    const [first] = unsettled
    const text = unsettled.map(one => one.text).join('; ')
    world.violate(`not settled ${Math.round(mostMs / 1000)} s after the faults: ${text}`, [
      first?.uid ?? '',
      fleet.books.placements.get(first?.uid ?? '')?.host ?? '',
    ])
    return undefined
  }
}

function checkAcknowledged(world: World, load: Load, books: Books): void {
  const there = new Set([...books.machines.values()].map(({ metadata }) => metadata.uid))
  for (const [uid, name] of load.acknowledged) {
    if (there.has(uid) || books.deletable.has(uid)) continue
    world.violate(`machine ${name} (${uid}) was acknowledged and is not there`, [uid, name])
  }
}
