import { setTimeout as delay } from 'node:timers/promises'
import type { CutDirection } from '../../agent/dev/links.ts'
import type { ProcessRole } from '../../agent/dev/processes.ts'
import { messageOf } from '../../base/errors.ts'
import { type Random, randomInteger } from '../../base/random.ts'
import { until } from '../support/host.ts'
import type { TestRack } from './rack.ts'

/** What happens to a host, or between two, for a while. */
export type Fault = {
  /** How long it lasts; what was only killed comes back by itself. */
  lastsMs: number
  /** From when it began until the next one is tried. */
  pauseMs: number
} & (
  | { kind: 'kill' | 'freeze'; host: string; role: ProcessRole; pick: number }
  | { kind: 'restart' | 'powerOff'; host: string }
  | { kind: 'cut'; host: string; direction: CutDirection }
  | { kind: 'cutBetween'; host: string; other: string; oneWay: boolean }
  | { kind: 'partition'; from: string; to: string; oneWay: boolean }
)

/** A fault that took place. Times are RFC 3339, as in the logs of the hosts. */
export interface FaultRecord {
  fault: Fault
  beganAt: string
  healedAt?: string
  /** What it met, or what went wrong. */
  notes: string[]
}

/** How faults are drawn. */
export interface FaultPlan {
  count: number
  hosts: readonly string[]
  racks: readonly string[]
  /** The longest that one lasts. A third is drawn up to it, the others are short. */
  mostMs: number
}

const roles: readonly ProcessRole[] = ['daemon', 'guardian', 'etcd', 'guest']
const shortMs = 4_000
/** So many at a time: of three voters one may be left, but all come back. */
const atOnce = 2
const healMs = 120_000

/** What is drawn from: some more often than others. */
const kinds: readonly Fault['kind'][] = [
  ...([
    'kill',
    'kill',
    'kill',
    'kill',
    'freeze',
    'freeze',
    'freeze',
    'powerOff',
    'powerOff',
  ] as const),
  ...(['restart', 'cut', 'cut', 'cutBetween', 'partition'] as const),
]

/** Draws faults; the same ones from the same seed. */
export function drawFaults({ count, hosts, racks, mostMs }: FaultPlan, random: Random): Fault[] {
  const below = (limit: number) => randomInteger(random, limit)
  const pick = <T>(list: readonly T[]): T => {
    const found = list[below(list.length)]
    if (found === undefined) throw new Error('nothing to pick from')
    return found
  }
  const draw = (): Fault => {
    const isLong = below(3) === 0
    const lastsMs = 500 + below(isLong ? mostMs : Math.min(mostMs, shortMs))
    const common = { lastsMs, pauseMs: 300 + below(2_500) }
    const kind = pick(kinds)
    const host = pick(hosts)
    const oneWay = below(2) === 0
    switch (kind) {
      case 'kill':
      case 'freeze':
        return { ...common, kind, host, role: pick(roles), pick: below(1_000) }
      case 'restart':
      case 'powerOff':
        return { ...common, kind, host }
      case 'cut':
        return { ...common, kind, host, direction: pick(['both', 'sent', 'received']) }
      case 'cutBetween': {
        const other = pick(hosts.filter(one => one !== host))
        return { ...common, kind, host, other, oneWay }
      }
      case 'partition': {
        const from = pick(racks)
        const to = pick(racks.filter(one => one !== from))
        return { ...common, kind, from, to, oneWay }
      }
    }
  }
  return Array.from({ length: count }, draw)
}

/** One line for people. */
export function tellFault({ fault, beganAt, healedAt, notes }: FaultRecord): string {
  const { kind, lastsMs: _, pauseMs: __, ...what } = fault
  const words = Object.entries(what).map(([name, value]) => `${name}=${value}`)
  return [`${beganAt} to ${healedAt ?? '?'}:`, kind, ...words, ...notes].join(' ')
}

/** Whatever a fault has to itself: no other may touch it meanwhile. */
function placesOf(fault: Fault): string[] {
  if (fault.kind === 'partition') return [fault.from, fault.to]
  return fault.kind === 'cutBetween' ? [fault.host, fault.other] : [fault.host]
}

/**
 * Lets faults happen, in their order, a few at a time, and heals each when its time is over. All
 * are over when this resolves.
 * @param onFault called with each as it begins
 */
export async function injectFaults(
  faults: readonly Fault[],
  rack: TestRack,
  onFault: (record: FaultRecord) => void,
): Promise<void> {
  const under = new Map<FaultRecord, Promise<void>>()
  const isFree = (fault: Fault): boolean => {
    const taken = [...under.keys()].flatMap(record => placesOf(record.fault))
    return under.size < atOnce && !placesOf(fault).some(place => taken.includes(place))
  }
  for (const fault of faults) {
    while (!isFree(fault)) await Promise.race(under.values())
    const record: FaultRecord = { fault, beganAt: new Date().toISOString(), notes: [] }
    onFault(record)
    const heal = await begin(fault, rack, record)
    const over = delay(fault.lastsMs)
      .then(async () => void (await heal()))
      .catch(error => void record.notes.push(`not healed: ${messageOf(error)}`))
      .finally(() => {
        record.healedAt = new Date().toISOString()
        under.delete(record)
      })
    under.set(record, over)
    await delay(fault.pauseMs)
  }
  await Promise.all(under.values())
}

/** @returns how it ends */
async function begin(fault: Fault, rack: TestRack, { notes }: FaultRecord): Promise<() => unknown> {
  const { links } = rack
  if (fault.kind === 'partition') {
    await links.cutBetween(fault.from, fault.to, fault.oneWay)
    return () => links.heal(fault.from, fault.to)
  }
  const host = rack.host(fault.host)
  switch (fault.kind) {
    case 'cut':
      await links.cut(host.name, fault.direction)
      return () => links.heal(host.name)
    case 'cutBetween':
      await links.cutBetween(host.name, fault.other, fault.oneWay)
      return () => links.heal(host.name, fault.other)
    case 'powerOff':
      await host.powerOff()
      return () => host.powerOn()
    case 'restart':
      await host.stop()
      return () => host.start()
  }
  const { role } = fault
  const guests = host.processes('guest').map(({ guest }) => guest)
  const guest = role === 'guest' ? guests[fault.pick % Math.max(1, guests.length)] : undefined
  if (role === 'guest' && guest === undefined) {
    notes.push('(there is none)')
    return () => {}
  }
  if (guest !== undefined) notes.push(guest.name)
  if (fault.kind === 'kill') {
    notes.push(`(${await host.kill(role, guest?.uid)} killed)`)
    // The daemon brings back what was its own to keep; itself it can't.
    return () => host.start()
  }
  notes.push(`(${host.freeze(role, guest?.uid)} frozen)`)
  return () => host.thaw(role, guest?.uid)
}

/** Ends whatever faults there may be left. @throws Error when a host does not come back in time */
export async function healAll(rack: TestRack): Promise<void> {
  for (const host of rack.hosts) for (const role of roles) host.thaw(role)
  await rack.links.heal()
  for (const host of rack.hosts) {
    await until(
      `${host.name} is back`,
      () =>
        host.start().then(
          () => true,
          () => undefined,
        ),
      healMs,
    )
  }
}
