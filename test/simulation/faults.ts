import type { Timing } from '../../cluster/fleet/timing.ts'
import type { Etcd } from './etcd.ts'
import type { Guests } from './guests.ts'
import type { SimulatedHost } from './host.ts'
import { goodQuality } from './link.ts'
import type { Chance, World } from './world.ts'

/** What may fail. */
export interface FaultsComponents {
  world: World
  etcd: Etcd
  guests: Guests
  hosts: readonly SimulatedHost[]
  timing: Timing
}

/** The mean time between two faults, in milliseconds. */
const pauseMs = { least: 300, most: 7_000 }
/** So long after an election another would be more than is promised. */
const calmAfterElectionMs = 15_000

/**
 * Faults from a seed. They keep away from the holes that docs/ARCHITECTURE.md names ("Fencing"):
 * guardian and daemon frozen together, and leases that end too early while a host is cut off.
 */
export class Faults {
  readonly #parts: FaultsComponents
  readonly #world: World
  readonly #chance: Chance
  /** Until when a host's processes are in the hands of a fault. */
  readonly #busyUntilMs = new Map<string, number>()
  #calmUntilMs = 0
  #ends = false
  count = 0

  constructor(parts: FaultsComponents) {
    this.#parts = parts
    this.#world = parts.world
    this.#chance = parts.world.chance.fork()
  }

  start(): void {
    const next = (): void => {
      if (this.#ends) return
      if (this.#world.nowMs >= this.#calmUntilMs) this.#happen()
      this.#world.after(this.#chance.between(pauseMs.least, pauseMs.most), next)
    }
    this.#world.after(this.#chance.between(pauseMs.least, pauseMs.most), next)
  }

  /** Everything works again, but what was given up for good. */
  heal(): void {
    this.#ends = true
    this.#world.tell('world', 'all faults end')
    for (const host of this.#parts.hosts) {
      host.link.heal()
      host.link.quality = goodQuality
      host.daemon?.thaw()
      host.guardian?.actor.thaw()
      host.powerOn()
      host.startGuardian([])
      host.startDaemon()
    }
  }

  #happen(): void {
    this.count++
    const host = this.#chance.pick(this.#parts.hosts)
    const dice = this.#chance.integer(100)
    if (dice < 16) this.#cut(host)
    else if (dice < 22) this.#worsen(host)
    else if (dice < 27) this.#breakWatches(host)
    else if (dice < 45) this.#failDaemon(host)
    else if (dice < 55) this.#failGuardian(host)
    else if (dice < 63) this.#losePower(host)
    else if (dice < 73) this.#elect()
    else if (dice < 76) this.#loseQuorum()
    else if (dice < 79) this.#endLeases()
    else if (dice < 86) this.#jump(host)
    else this.#failGuest()
  }

  #impair(host: SimulatedHost, forMs: number): void {
    host.impairedUntilMs = Math.max(host.impairedUntilMs, this.#world.nowMs + forMs)
  }

  #impairAll(forMs: number): void {
    for (const host of this.#parts.hosts) this.#impair(host, forMs)
  }

  #isBusy({ name }: SimulatedHost): boolean {
    return (this.#busyUntilMs.get(name) ?? 0) > this.#world.nowMs
  }

  #occupy({ name }: SimulatedHost, forMs: number): void {
    this.#busyUntilMs.set(name, this.#world.nowMs + forMs)
  }

  /** Mostly short, sometimes around the spans of fencing, seldom long. */
  #spanMs(): number {
    const { fenceMs, hostLeaseTtlMs, graceMs } = this.#parts.timing
    const dice = this.#chance.integer(10)
    if (dice < 3) return this.#chance.between(100, hostLeaseTtlMs)
    if (dice < 8) return this.#chance.between(hostLeaseTtlMs, fenceMs + graceMs)
    return this.#chance.between(fenceMs, 40_000)
  }

  #cut(host: SimulatedHost): void {
    const ways = this.#chance.pick([['out', 'back'], ['out', 'back'], ['out'], ['back']] as const)
    const forMs = this.#spanMs()
    this.#world.tell(host.name, `is cut off (${ways.join(' and ')}) for ${Math.round(forMs)} ms`)
    host.link.cut(...ways)
    this.#impair(host, forMs)
    this.#world.after(forMs, () => {
      this.#world.tell(host.name, 'is in touch again')
      host.link.heal()
    })
  }

  #worsen(host: SimulatedHost): void {
    const forMs = this.#chance.between(1_000, 20_000)
    const quality = this.#chance.pick([
      { ...goodQuality, leastMs: 50, mostMs: 1_500 },
      { ...goodQuality, loss: 0.2 },
      { ...goodQuality, doubling: 0.3 },
      { leastMs: 5, mostMs: 200, loss: 0.1, doubling: 0.1 },
    ])
    this.#world.tell(host.name, `has a bad link, ${JSON.stringify(quality)}`)
    host.link.quality = quality
    this.#impair(host, forMs)
    this.#world.after(forMs, () => {
      host.link.quality = goodQuality
    })
  }

  #breakWatches(host: SimulatedHost): void {
    this.#world.tell(host.name, 'its connections to the store break')
    host.link.breakConnections()
  }

  #failDaemon(host: SimulatedHost): void {
    const { daemon } = host
    if (daemon === undefined || this.#isBusy(host)) return
    const dice = this.#chance.integer(3)
    const forMs = this.#chance.happens(0.7)
      ? this.#chance.between(100, 8_000)
      : this.#chance.between(8_000, 45_000)
    // The daemon's silence, planned or not, is promised for so long only.
    const promisedMs = dice === 2 ? 2 * forMs : this.#parts.timing.daemonSilenceMs * 0.9
    if (forMs > promisedMs) this.#impair(host, forMs)
    this.#occupy(host, forMs + 100)
    if (dice === 0) {
      host.killDaemon()
      this.#world.after(forMs, () => host.startDaemon())
    } else if (dice === 1) {
      this.#world.tell(host.name, `its daemon is frozen for ${Math.round(forMs)} ms`)
      daemon.freeze()
      this.#world.after(forMs, () => {
        this.#world.tell(host.name, 'its daemon goes on')
        daemon.thaw()
      })
    } else {
      this.#world.tell(host.name, 'its daemon is restarted, as planned')
      void host.restartDaemon(forMs)
      // Announcing it takes a while when the guardian does not answer.
      this.#occupy(host, forMs + 11_000)
    }
  }

  #failGuardian(host: SimulatedHost): void {
    const { guardian, daemon } = host
    if (guardian === undefined || daemon === undefined || this.#isBusy(host)) return
    if (this.#chance.happens(0.4)) {
      const before = host.killGuardian()
      const forMs = this.#chance.between(50, 3_000)
      this.#occupy(host, forMs + 100)
      this.#impair(host, forMs)
      this.#world.after(forMs, () => host.startGuardian(before))
      return
    }
    // Not when a deadline is near already: the daemon may be two checks late.
    if (host.impairedUntilMs + 2_000 > this.#world.nowMs) return
    const forMs = this.#spanMs()
    this.#occupy(host, forMs + 1_000)
    this.#impair(host, forMs)
    this.#world.tell(host.name, `its guardian is frozen for ${Math.round(forMs)} ms`)
    guardian.actor.freeze()
    this.#world.after(forMs, () => {
      this.#world.tell(host.name, 'its guardian goes on')
      guardian.actor.thaw()
    })
  }

  #losePower(host: SimulatedHost): void {
    const forMs = this.#chance.between(500, 30_000)
    this.#occupy(host, forMs)
    this.#impair(host, forMs)
    host.powerOff()
    this.#world.after(forMs, () => host.powerOn())
  }

  #elect(): void {
    const forMs = this.#chance.between(100, this.#parts.timing.electionMostMs)
    this.#world.tell('etcd', `has no leader for ${Math.round(forMs)} ms`)
    this.#parts.etcd.elect(forMs)
    if (this.#world.nowMs < this.#electedMs + calmAfterElectionMs) this.#impairAll(forMs)
    this.#electedMs = this.#world.nowMs
  }

  #electedMs = Number.NEGATIVE_INFINITY

  #loseQuorum(): void {
    const forMs = this.#chance.between(3_000, 20_000)
    this.#world.tell('etcd', `has no quorum for ${Math.round(forMs)} ms`)
    this.#parts.etcd.elect(forMs)
    this.#electedMs = this.#world.nowMs
    this.#impairAll(forMs)
  }

  #endLeases(): void {
    const { hosts, etcd, timing } = this.#parts
    const nowMs = this.#world.nowMs
    const isGood = hosts.every(host => host.impairedUntilMs + timing.fenceMs < nowMs)
    if (!isGood || !etcd.hasLeader) return
    this.#world.tell('etcd', 'ends all leases before their time')
    etcd.endLeases()
    this.#impairAll(timing.fenceMs)
    this.#calmUntilMs = nowMs + timing.hostLeaseTtlMs + timing.graceMs
  }

  #jump({ name, clocks }: SimulatedHost): void {
    const byMs = this.#chance.between(-7_200_000, 7_200_000)
    this.#world.tell(name, `its wall clock jumps by ${Math.round(byMs / 1000)} s`)
    clocks.wallOffsetMs += byMs
  }

  #failGuest(): void {
    const { guests } = this.#parts
    const all = guests.all()
    if (all.length === 0) return
    const guest = this.#chance.pick(all)
    const code = this.#chance.pick([0, 1])
    this.#world.tell(guest.host, `guest ${guest.uid} ${code === 0 ? 'powers off' : 'crashes'}`)
    guests.end(guest, { code, signal: null })
  }
}
