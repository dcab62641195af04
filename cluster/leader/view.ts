import type { Clock } from '../../base/clock.ts'
import type { Log } from '../../base/log.ts'
import { type Host, hostKind } from '../../resources/host.ts'
import { type Image, imageKind } from '../../resources/image.ts'
import { keyPrefix, objectKey } from '../../resources/keys.ts'
import { type VirtualMachine, virtualMachineKind } from '../../resources/virtual-machine.ts'
import {
  fleetKey,
  hostLeaseKey,
  hostLeasePrefix,
  hostLifeKey,
  hostLifePrefix,
  memberKey,
  memberPrefix,
  placementKey,
  placementPrefix,
} from '../fleet/keys.ts'
import type { FleetRecord, Member } from '../fleet/member.ts'
import { type Placement, placementOf } from '../fleet/placement.ts'
import { objectOf } from '../object-record.ts'
import { followPrefix } from '../store/follow.ts'
import type { Entry, Store } from '../store/store.ts'
import { createKnownEntries } from './known-entries.ts'

/** A record, and the store's entry that it was read from. */
export interface Known<T> {
  entry: Entry
  value: T
}

/** What there is news of; `fleet` stands for members and the fleet's record. */
export type News =
  | { of: 'machine' | 'placement'; uid: string }
  | { of: 'host' | 'lease'; host: string }
  | { of: 'image'; key: string }
  | { of: 'fleet' }

/** Who looks, and what for. */
export interface FleetViewInit {
  /** Called for everything that changed, once all was listed; and for everything when it was. */
  onNews(news: News): void
  /** The fleet's records were listed anew: some may have come and gone unseen. */
  onGap(): void
}

/** What the view needs. */
export interface FleetViewComponents {
  store: Store
  clock: Clock
  log: Log
}

/**
 * Machines, hosts, images and the fleet's records, as far as this host knows: never older than
 * what its own transactions showed it, and perhaps older than what is. What rests on it compares
 * the revisions of these entries when it writes.
 */
export interface FleetView {
  /** False until everything was listed once. */
  isReady(): boolean
  machine(uid: string): Known<VirtualMachine> | undefined
  /** What is known of a key that the view follows. */
  entry(key: string): Entry | undefined
  placement(uid: string): Known<Placement> | undefined
  host(name: string): Known<Host> | undefined
  image(machine: VirtualMachine): Image | undefined
  lease(host: string): Entry | undefined
  life(host: string): Entry | undefined
  member(host: string): Member | undefined
  members(): Member[]
  record(): Known<FleetRecord> | undefined
  /** The uids of all machines and placements. */
  uids(): Set<string>
  hosts(): string[]
  /** The uids of the placements that name a host. */
  placedOn(host: string): string[]
  /** What one of our transactions showed: the entry of a key at a revision. */
  learn(key: string, entry: Entry | undefined, revision: number): void
}

/** A view that is kept up to date until it is stopped. */
export interface FollowedFleet extends FleetView {
  stop(): Promise<void>
}

/** The key of a machine's object. */
export const machineKey = (machine: { namespace: string; name: string }): string =>
  objectKey(virtualMachineKind, machine)

const fleetPrefix = 'fleet/'
const machinePrefix = keyPrefix(virtualMachineKind)
const hostPrefix = keyPrefix(hostKind)
const imagePrefix = keyPrefix(imageKind)
const prefixes = [fleetPrefix, machinePrefix, hostPrefix, imagePrefix]

/** Begins to follow; ends with `stop()`. */
export function followFleet(init: FleetViewInit, components: FleetViewComponents): FollowedFleet {
  const view = new View(init)
  const followings = prefixes.map(prefix =>
    followPrefix(
      prefix,
      {
        onListed: (entries, revision) => view.listed(prefix, entries, revision),
        onChanged: (key, entry, revision) => view.watched(prefix, key, entry, revision),
      },
      components,
    ),
  )
  return Object.assign(view, {
    async stop() {
      await Promise.all(followings.map(following => following.stop()))
    },
  })
}

/** Looks once, for those who only ask. */
export async function readFleet(store: Store): Promise<FleetView> {
  const view = new View({ onNews: () => {}, onGap: () => {} })
  for (const prefix of prefixes) {
    const { entries, revision } = await store.list(prefix)
    view.listed(prefix, entries, revision)
  }
  return view
}

class View implements FleetView {
  readonly #init: FleetViewInit
  readonly #known = new Map(prefixes.map(prefix => [prefix, createKnownEntries()]))
  readonly #listed = new Set<string>()
  /** Machines by uid: their keys; and the uid that was last seen under each key. */
  readonly #keys = new Map<string, string>()
  readonly #uids = new Map<string, string>()

  constructor(init: FleetViewInit) {
    this.#init = init
  }

  listed(prefix: string, entries: readonly Entry[], revision: number): void {
    const wasReady = this.isReady()
    if (prefix === fleetPrefix && this.#listed.has(prefix)) this.#init.onGap()
    this.#listed.add(prefix)
    const news = this.#known.get(prefix)?.listed(entries, revision) ?? []
    for (const key of news) this.#onNews(prefix, key, wasReady)
    if (!wasReady && this.isReady()) this.#tellAll()
  }

  watched(prefix: string, key: string, entry: Entry | undefined, revision: number): void {
    const isNew = this.#known.get(prefix)?.watched(key, entry, revision) === true
    if (isNew) this.#onNews(prefix, key, this.isReady())
  }

  isReady(): boolean {
    return this.#listed.size === prefixes.length
  }

  machine(uid: string): Known<VirtualMachine> | undefined {
    const key = this.#keys.get(uid)
    const entry = key === undefined ? undefined : this.#get(machinePrefix, key)
    return entry === undefined ? undefined : { entry, value: objectOf<VirtualMachine>(entry) }
  }

  entry(key: string): Entry | undefined {
    const prefix = prefixes.find(one => key.startsWith(one))
    return prefix === undefined ? undefined : this.#get(prefix, key)
  }

  placement(uid: string): Known<Placement> | undefined {
    const entry = this.#get(fleetPrefix, placementKey(uid))
    return entry === undefined ? undefined : { entry, value: placementOf(entry) }
  }

  host(name: string): Known<Host> | undefined {
    const entry = this.#get(hostPrefix, objectKey(hostKind, { name }))
    return entry === undefined ? undefined : { entry, value: objectOf<Host>(entry) }
  }

  image(machine: VirtualMachine): Image | undefined {
    const { namespace = '' } = machine.metadata
    const key = objectKey(imageKind, { namespace, name: machine.spec.image })
    const entry = this.#get(imagePrefix, key)
    return entry === undefined ? undefined : objectOf<Image>(entry)
  }

  lease(host: string): Entry | undefined {
    return this.#get(fleetPrefix, hostLeaseKey(host))
  }

  life(host: string): Entry | undefined {
    return this.#get(fleetPrefix, hostLifeKey(host))
  }

  member(host: string): Member | undefined {
    return this.#get(fleetPrefix, memberKey(host))?.value as unknown as Member | undefined
  }

  members(): Member[] {
    return this.#under(fleetPrefix, memberPrefix).map(({ value }) => value as unknown as Member)
  }

  record(): Known<FleetRecord> | undefined {
    const entry = this.#get(fleetPrefix, fleetKey)
    return entry && { entry, value: entry.value as unknown as FleetRecord }
  }

  uids(): Set<string> {
    const placed = this.#under(fleetPrefix, placementPrefix)
    return new Set([...this.#keys.keys(), ...placed.map(entry => placementOf(entry).uid)])
  }

  hosts(): string[] {
    const names = this.#under(hostPrefix, hostPrefix).map(({ key }) => key.slice(hostPrefix.length))
    const placed = this.#under(fleetPrefix, placementPrefix).map(entry => placementOf(entry).host)
    return [...new Set([...names, ...this.members().map(({ name }) => name), ...placed])]
  }

  placedOn(host: string): string[] {
    return this.#under(fleetPrefix, placementPrefix)
      .map(placementOf)
      .flatMap(placement => (placement.host === host ? placement.uid : []))
  }

  learn(key: string, entry: Entry | undefined, revision: number): void {
    const prefix = prefixes.find(one => key.startsWith(one))
    if (prefix === undefined) return
    const isNew = this.#known.get(prefix)?.learned(key, entry, revision) === true
    if (isNew) this.#onNews(prefix, key, this.isReady())
  }

  #get(prefix: string, key: string): Entry | undefined {
    return this.#known.get(prefix)?.get(key)
  }

  #under(prefix: string, narrower: string): Entry[] {
    const all = this.#known.get(prefix)?.all() ?? []
    return [...all].filter(({ key }) => key.startsWith(narrower))
  }

  #tellAll(): void {
    this.#init.onNews({ of: 'fleet' })
    for (const host of this.hosts()) {
      this.#init.onNews({ of: 'lease', host })
      this.#init.onNews({ of: 'host', host })
    }
    for (const uid of this.uids()) this.#init.onNews({ of: 'machine', uid })
  }

  #onNews(prefix: string, key: string, ready: boolean): void {
    const changed = prefix === machinePrefix ? this.#onMachine(key) : []
    if (!ready) return
    if (prefix === hostPrefix) {
      this.#init.onNews({ of: 'host', host: key.slice(hostPrefix.length) })
    } else if (prefix === imagePrefix) {
      this.#init.onNews({ of: 'image', key })
    } else if (prefix === fleetPrefix) {
      this.#onFleetNews(key)
    }
    for (const uid of changed) this.#init.onNews({ of: 'machine', uid })
  }

  /** @returns the uids that are concerned: two when another machine took the name */
  #onMachine(key: string): string[] {
    const entry = this.#get(machinePrefix, key)
    const before = this.#uids.get(key)
    const now = entry === undefined ? undefined : objectOf(entry).metadata.uid
    if (before !== undefined && before !== now) {
      this.#keys.delete(before)
      this.#uids.delete(key)
    }
    if (now !== undefined) {
      this.#keys.set(now, key)
      this.#uids.set(key, now)
    }
    return [...new Set([before, now])].flatMap(uid => uid ?? [])
  }

  #onFleetNews(key: string): void {
    if (key.startsWith(placementPrefix)) {
      this.#init.onNews({ of: 'placement', uid: key.slice(placementPrefix.length) })
    } else if (key.startsWith(hostLeasePrefix)) {
      this.#init.onNews({ of: 'lease', host: key.slice(hostLeasePrefix.length) })
    } else if (key.startsWith(hostLifePrefix)) {
      this.#init.onNews({ of: 'lease', host: key.slice(hostLifePrefix.length) })
    } else if (key.startsWith(memberPrefix)) {
      this.#init.onNews({ of: 'host', host: key.slice(memberPrefix.length) })
      this.#init.onNews({ of: 'fleet' })
    } else if (key === fleetKey) {
      this.#init.onNews({ of: 'fleet' })
    }
  }
}
