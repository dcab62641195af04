import { type Copies, createCopyCounts } from './copies.ts'
import { createHostTable, type HostTable } from './host-table.ts'
import { createQueue } from './queue.ts'
import type { FleetState, HostView, Needs, Placed, Policy } from './types.ts'
import { createVerdictCache, type Verdicts } from './verdicts.ts'

/** A fleet's state with what makes finding a host in it fast. */
export interface IndexedState extends FleetState {
  readonly bounds: SchedulerBounds
  readonly table: Pick<HostTable, 'size' | 'free' | 'all' | 'candidates' | 'slotOf' | 'at' | 'used'>
  verdicts(needs: Needs): Verdicts
  copies(needs: Pick<Needs, 'group' | 'spread'>): Copies | undefined
}

/** What the scheduler is held to. */
export interface SchedulerBounds {
  /** Different needs, the verdicts on which are remembered. */
  classes: number
  /** Labels by which copies are counted at once. */
  spreadLabels: number
  /** Machines that keep room while they wait; those further down the queue keep none. */
  keepers: number
  /** Hosts on which one of them keeps room. */
  keptHosts: number
  /** Reasons told of one machine. */
  reasons: number
}

/** The bounds in service; at 10,000 hosts the verdicts take 80 KB for each class. */
export const defaultBounds: SchedulerBounds = {
  classes: 64,
  spreadLabels: 8,
  keepers: 32,
  keptHosts: 1024,
  reasons: 8,
}

/** How a fleet places machines unless it says otherwise. */
export const defaultPolicy: Policy = {
  room: 'balance',
  seed: 0,
  patienceMs: 5 * 60_000,
  widenMs: 60_000,
}

/** A fleet without hosts and machines. */
export function createFleetState(
  policy: Policy = defaultPolicy,
  bounds: SchedulerBounds = defaultBounds,
): IndexedState {
  const table = createHostTable()
  const queue = createQueue()
  const placed = new Map<string, Placed>()
  const verdicts = createVerdictCache(table.at, bounds.classes)
  const copies = createCopyCounts({
    size: () => table.size,
    at: table.at,
    slotOf: table.slotOf,
    labelsMost: bounds.spreadLabels,
  })
  const vacate = (uid: string): void => {
    const before = placed.get(uid)
    if (before === undefined) return
    placed.delete(uid)
    table.take(before, -1)
    copies.change(before, -1)
  }

  return {
    policy,
    bounds,
    table,
    verdicts: verdicts.for,
    copies: copies.of,
    hosts: table.hosts,
    host: name => at(table, name),
    placed: uid => placed.get(uid),
    hostOf: uid => placed.get(uid)?.host,
    reserved(name) {
      const { nanocores, memoryBytes, machines } = table.used(name)
      return { cpu: nanocores / 1e9, memoryBytes, diskBytes: 0, machines }
    },
    macosGuests: name => table.used(name).macosGuests,
    queue: queue.all,
    setHost(host) {
      const before = at(table, host.name)
      const slot = table.set(host)
      verdicts.forget(slot)
      // Facts come every few seconds, other labels hardly ever.
      if (before === undefined || !sameLabels(before, host)) copies.hostsChanged()
    },
    removeHost(name) {
      const slot = table.remove(name)
      if (slot === undefined) return
      verdicts.forget(slot)
      copies.hostsChanged()
    },
    occupy(next) {
      vacate(next.uid)
      placed.set(next.uid, next)
      table.take(next, 1)
      copies.change(next, 1)
    },
    vacate,
    want: queue.set,
    unwant: queue.delete,
  }
}

function at(table: HostTable, name: string): HostView | undefined {
  const slot = table.slotOf(name)
  return slot === undefined ? undefined : table.at(slot)
}

function sameLabels({ labels: before }: HostView, { labels: after }: HostView): boolean {
  const keys = Object.keys(after)
  if (keys.length !== Object.keys(before).length) return false
  return keys.every(key => before[key] === after[key])
}
