import { lstatSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { failure } from '../../base/errors.ts'
import { isAlive } from '../../base/process-identity.ts'
import { createDevHost, type DevHost, type DevHostComponents } from './host.ts'
import { createLinks, type Links } from './links.ts'
import { makeNetwork, networksNow, type Place, plugIn, removeNetwork } from './network.ts'
import { hostsMost, networkName, networkSubnet, parseNetworkName, racksMost } from './plan.ts'

/** How many hosts, and where their files are. */
export interface DevFleetInit {
  /** `mac-1` and on, the first ones in the first rack. */
  hosts: number
  /** Each is a bridge; a router joins them and passes no multicast. */
  racks: number
  /** Settings of every daemon. */
  settings?: Record<string, unknown>
}

/** Hosts on this machine, with links that can be cut. One fleet once they were joined. */
export interface DevFleet {
  /** Everything that the hosts write lies in here; it goes with them. */
  folder: string
  /** All addresses; the machine reaches them by a route that goes with the fleet. */
  subnet: string
  hosts: readonly DevHost[]
  /** @throws devFailed when there is none of that name */
  host(name: string): DevHost
  links: Links
  /** Starts the daemons of all hosts, and waits until each is ready. */
  start(): Promise<void>
  /** Puts one more host into a rack (from 1). Its daemon is not started. */
  addHost(rack: number, settings?: Record<string, unknown>): Promise<DevHost>
  /** Kills all that runs on the hosts, and leaves nothing. May be called at any time, and again. */
  remove(): Promise<void>
}

/**
 * Makes hosts on this machine; no daemon is started yet. What dead makers left behind is removed
 * first. `macfleet dev` is made of this, and so are the tests of fleets.
 * @throws devNeedsRoot, devFailed, commandMissing, commandFailed
 */
export async function createDevFleet(
  init: DevFleetInit,
  components: DevHostComponents,
): Promise<DevFleet> {
  checkCounts(init)
  await removeLeftovers(components)
  const plan = await makeNetwork(init.racks, components)
  const folder = join(tmpdir(), networkName(plan))
  const hosts: DevHost[] = []
  const places = new Map<string, Place>()
  const ending = new AbortController()
  const fleet: DevFleet = {
    folder,
    subnet: networkSubnet(plan),
    hosts,
    links: createLinks(plan, places, components),
    host(name) {
      const found = hosts.find(host => host.name === name)
      if (found === undefined) throw failure('devFailed', { detail: `there is no host ${name}` })
      return found
    },
    async start() {
      await Promise.all(hosts.map(host => host.start()))
    },
    async addHost(rack, settings = {}) {
      const number = hosts.length + 1
      const place = { number, name: `mac-${number}`, rack }
      checkCounts({ hosts: number, racks: rack })
      places.set(place.name, place)
      const own = {
        plan,
        place,
        folder: join(folder, place.name),
        settings: { ...init.settings, ...settings },
        signal: ending.signal,
      }
      const host = createDevHost(own, components)
      hosts.push(host)
      await plugIn(plan, place, components)
      return host
    },
    async remove() {
      ending.abort()
      await removeNetwork(plan, components)
      rmSync(folder, { recursive: true, force: true })
    },
  }
  try {
    mkdirSync(folder, { mode: 0o711 })
    for (let index = 0; index < init.hosts; index++) {
      await fleet.addHost(Math.floor((index * init.racks) / init.hosts) + 1)
    }
    return fleet
  } catch (error) {
    await fleet.remove()
    throw error
  }
}

function checkCounts({ hosts, racks }: DevFleetInit): void {
  const fits = hosts >= 1 && hosts <= hostsMost && racks >= 1 && racks <= racksMost
  if (fits && Number.isInteger(hosts) && Number.isInteger(racks)) return
  const detail = `from 1 to ${hostsMost} hosts in from 1 to ${racksMost} racks are possible`
  throw failure('badRequest', { detail })
}

/**
 * Removes what was left behind by makers that were killed: namespaces, links, routes, processes and
 * folders. What a living process made is left alone.
 */
export async function removeLeftovers(components: DevHostComponents): Promise<void> {
  const left = networksNow().filter(({ owner }) => !isAlive(owner))
  for (const plan of left) await removeNetwork(plan, components)
  for (const name of readdirSync(tmpdir())) {
    const plan = parseNetworkName(name)
    if (plan === undefined || isAlive(plan.owner)) continue
    const path = join(tmpdir(), name)
    // Anybody may write there: only a folder of our own is ours to remove.
    const stats = lstatSync(path, { throwIfNoEntry: false })
    const isOurs = stats?.isDirectory() && stats.uid === process.getuid?.()
    if (isOurs) rmSync(path, { recursive: true, force: true })
  }
}
