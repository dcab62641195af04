import type { GuardedProcess } from '../../agent/guardian/protocol.ts'
import { startHostLease } from '../../agent/host-lease.ts'
import { sleep, timestamp } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import { createMetrics } from '../../base/metrics.ts'
import { createEventRecorder } from '../../cluster/event-recorder.ts'
import { noFacts } from '../../cluster/fleet/facts.ts'
import { hostLeaseKey } from '../../cluster/fleet/keys.ts'
import type { Timing } from '../../cluster/fleet/timing.ts'
import { startLeader } from '../../cluster/leader/leader.ts'
import { createLeaderMetrics } from '../../cluster/leader/metrics.ts'
import { createObjects, type Objects } from '../../cluster/objects.ts'
import { findCondition, withCondition } from '../../resources/condition.ts'
import { type Amounts, type Host, hostKind } from '../../resources/host.ts'
import { Actor, MachineClocks } from './actor.ts'
import { type Etcd, limits } from './etcd.ts'
import { SimulatedGuardian } from './guardian.ts'
import { GuardianClient } from './guardian-client.ts'
import type { Guests } from './guests.ts'
import { Link } from './link.ts'
import { type GuestDisk, Machines } from './machines.ts'
import { createStoreClient } from './store-client.ts'
import type { World } from './world.ts'

/** What a host has. */
export interface HostInit {
  name: string
  allocatable: Amounts
  labels: Record<string, string>
  timing: Timing
  /** On purpose broken: fencing kills nobody. */
  spares: boolean
  /** A guest is killed by fencing. */
  onFenced(host: SimulatedHost, uid: string): void
}

/** What all hosts share. */
export interface Surroundings {
  world: World
  etcd: Etcd
  guests: Guests
}

/** Clocks of two machines differ by less than `Timing.clockDrift` then. */
const driftMost = 0.0049
/** A guest takes so long to shut down. */
const shutdownMs = { least: 200, most: 5_000 }
const hostStatusMs = 5_000

/** A machine with a daemon, a guardian, a disk and a link; each can fail by itself. */
export class SimulatedHost {
  readonly name: string
  readonly init: HostInit
  readonly link: Link
  readonly clocks: MachineClocks
  readonly disk: GuestDisk = new Map()
  guardian: SimulatedGuardian | undefined
  daemon: Actor | undefined
  /** Switched off, and never to come back. */
  isForgotten = false
  /** World time until which it was last outside of what is promised; it may be to come. */
  impairedUntilMs = 0
  daemonDownSinceMs: number | undefined
  #client: GuardianClient | undefined
  #announce: ((forMs: number) => Promise<void>) | undefined
  /** The guardian's registry of what runs, which outlives it. */
  #boots = 0
  #power = false
  readonly #surroundings: Surroundings

  constructor(init: HostInit, surroundings: Surroundings) {
    const { world } = surroundings
    this.name = init.name
    this.init = init
    this.#surroundings = surroundings
    this.link = new Link(world, world.chance.fork())
    const rate = 1 + world.chance.between(-driftMost, driftMost)
    this.clocks = new MachineClocks(world, rate, world.chance.between(-2_000, 2_000))
  }

  get isOn(): boolean {
    return this.#power
  }

  powerOn(): void {
    if (this.#power || this.isForgotten) return
    this.#power = true
    this.#boots++
    this.clocks.boot()
    this.#world.tell(this.name, `is switched on, boot ${this.#boots}`)
    this.startGuardian([])
    this.startDaemon()
  }

  powerOff(): void {
    if (!this.#power) return
    this.#power = false
    this.#world.tell(this.name, 'loses power')
    this.killDaemon()
    this.killGuardian()
  }

  /** All its guests die with it, by the kernel's hand. */
  killGuardian(): GuardedProcess[] {
    const { guardian } = this
    if (guardian === undefined) return []
    this.guardian = undefined
    this.#world.tell(this.name, 'its guardian is killed')
    guardian.actor.end()
    for (const guest of this.#surroundings.guests.on(this.name)) {
      this.#surroundings.guests.end(guest, { code: null, signal: 'SIGKILL' })
    }
    this.#client?.disconnect(guardian)
    return guardian.list()
  }

  /** @param before what the guardian before it had */
  startGuardian(before: readonly GuardedProcess[]): void {
    if (!this.#power || this.guardian !== undefined) return
    const { world, etcd, guests } = this.#surroundings
    const actor = new Actor(`${this.name} guardian`, world, this.clocks)
    const endedAt = timestamp(actor.clock)
    const lost = { reason: 'guardianLost', code: null, signal: null, stderrTail: '' } as const
    const ended = before.map(one => ({ ...one, ended: one.ended ?? { ...lost, endedAt } }))
    const guardian: SimulatedGuardian = new SimulatedGuardian(
      {
        host: this.name,
        version: '1',
        ended,
        spares: this.init.spares,
        onFenced: uid => this.init.onFenced(this, uid),
        onExit: event => this.#client?.tell(guardian, event),
      },
      { actor, guests, store: createStoreClient(this.name, actor, this.link, etcd) },
    )
    this.guardian = guardian
    world.tell(this.name, 'its guardian is started')
    world.after(world.chance.between(5, 300), () => this.#connect())
  }

  killDaemon(): void {
    if (this.daemon === undefined) return
    this.#world.tell(this.name, 'its daemon is killed')
    this.daemon.end()
    this.daemon = undefined
    this.daemonDownSinceMs = this.#world.nowMs
    this.#client = undefined
    this.#announce = undefined
  }

  /** The daemon says that it will be away, and goes. */
  async restartDaemon(awayMs: number): Promise<void> {
    const { daemon } = this
    const announced = this.#announce?.(2 * awayMs).catch(() => {})
    await announced
    if (this.daemon !== daemon) return
    this.killDaemon()
    this.#world.after(awayMs, () => this.startDaemon())
  }

  startDaemon(): void {
    if (!this.#power || this.daemon !== undefined) return
    const { world, etcd } = this.#surroundings
    const actor = new Actor(`${this.name} daemon`, world, this.clocks)
    this.daemon = actor
    this.daemonDownSinceMs = undefined
    world.tell(this.name, 'its daemon is started')
    const client = new GuardianClient(actor)
    this.#client = client
    world.after(world.chance.between(5, 100), () => this.#connect())
    const store = createStoreClient(this.name, actor, this.link, etcd)
    const { clock, log } = actor
    const { random } = world.chance.fork()
    const common = { clock, random, log, limits, store }
    const objects = createObjects({}, common)
    const { name, init } = this
    const { timing } = init
    const lease = startHostLease(
      {
        ...{ host: name, hostId: `id-${name}`, bootId: `${name}-${this.#boots}`, timing },
        dataFolder: '/simulated',
        endpoints: () => ['a', 'b', 'c'],
        tls: { authorityPath: '', certificatePath: '', keyPath: '' },
        etcdKey: key => key,
        kill: guest => this.#killInstead(guest.name),
      },
      { store, guardian: client, clock, bootClock: actor.bootClock, log },
    )
    this.#announce = forMs => lease.announceRestart(forMs)
    const events = createEventRecorder(
      { component: 'macfleetd', host: name, windowMs: 60_000 },
      { ...common, objects },
    )
    const metrics = createLeaderMetrics(createMetrics())
    startLeader(
      { host: name, timing, fenced: true },
      { ...common, objects, facts: noFacts, events, metrics },
    )
    void tellHost(this, actor, objects)
    const machines = new Machines({
      ...{ host: name, allocatable: init.allocatable, actor, store, objects, lease },
      guardian: lease.guardian,
      disk: this.disk,
      shutDown: uid => this.#shutDown(uid),
    })
    void machines.start()
  }

  get leaseKey(): string {
    return hostLeaseKey(this.name)
  }

  get #world(): World {
    return this.#surroundings.world
  }

  #connect(): void {
    const { guardian } = this
    if (guardian !== undefined) this.#client?.connect(guardian)
  }

  /** The guest does as it is asked, whoever of the others is there by then. */
  #shutDown(uid: string): void {
    const { world, guests } = this.#surroundings
    const guest = guests.of(uid).find(({ host }) => host === this.name)
    if (guest === undefined) return
    world.after(world.chance.between(shutdownMs.least, shutdownMs.most), () =>
      guests.end(guest, { code: 0, signal: null }),
    )
  }

  /** The daemon does the guardian's duty. */
  #killInstead(uid: string): boolean {
    const { guests } = this.#surroundings
    const guest = guests.of(uid).find(({ host }) => host === this.name)
    if (guest === undefined || this.init.spares) return false
    this.#world.tell(this.name, `the daemon kills ${uid} in its guardian's place`)
    this.init.onFenced(this, uid)
    guests.kill(guest)
    return true
  }
}

/** Creates the Host object when there is none, and keeps it true (agent/host-controller.ts). */
async function tellHost(host: SimulatedHost, actor: Actor, objects: Objects): Promise<void> {
  const { name, init } = host
  const { clock, log } = actor
  const tell = async (): Promise<void> => {
    if ((await objects.find(hostKind, { name })) === undefined) {
      const object: Host = {
        apiVersion: 'macfleet.dev/v1',
        kind: 'Host',
        metadata: { name, labels: init.labels },
        spec: { schedulable: true },
      }
      await objects.create(hostKind, object)
    }
    await objects.changeStatus(hostKind, { name }, (status = {}) => {
      if (findCondition(status.conditions, 'Ready')?.status === 'True') return status
      const ready = { type: 'Ready', status: 'True', reason: 'Ready', message: '' } as const
      const conditions = withCondition(status.conditions ?? [], ready, timestamp(clock))
      return { ...status, allocatable: init.allocatable, arch: 'x86_64', conditions }
    })
  }
  for (;;) {
    await tell().catch(error => log.debug({ error: messageOf(error) }, 'not told'))
    await sleep(clock, hostStatusMs)
  }
}
