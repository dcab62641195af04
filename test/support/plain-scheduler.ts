import type { SchedulerBounds } from '../../cluster/scheduler/fleet-state.ts'
import { hashOf, mixed } from '../../cluster/scheduler/hash.ts'
import type { HostView, Placed, Policy, Taint, Wanted } from '../../cluster/scheduler/types.ts'

/** What a plain scheduler knows: lists. */
export interface PlainFleet {
  policy: Policy
  bounds: SchedulerBounds
  hosts: readonly HostView[]
  placed: readonly Placed[]
  nowMs: number
}

/** Room that is kept on a host for a machine. */
export interface PlainKeep {
  host: string
  wanted: Pick<Wanted, 'request' | 'machine'>
}

type Demand = Pick<Placed, 'request' | 'machine'>

/** The same rules as the scheduler's, said again without any thought of speed. */
export function plainScore(
  fleet: PlainFleet,
  keeps: readonly PlainKeep[],
  wanted: Wanted,
  host: HostView,
): number | undefined {
  if (!accepts(fleet, wanted, host)) return undefined
  const here = [...on(fleet.placed, host), ...on(keeps, host).map(keep => keep.wanted), wanted]
  if (lack(host, here, wanted) > 0) return undefined
  const running = on(fleet.placed, host)
  const left = (of: (demand: Demand) => number, all: number) =>
    all === 0 ? 0 : 1 - sum([...running, wanted].map(of)) / all
  const free =
    (left(cores, host.allocatable.cpu * 1e9) + left(bytes, host.allocatable.memoryBytes)) / 2
  const room = 2 * (fleet.policy.room === 'balance' ? free : 1 - free)
  const label = wanted.spread ?? 'rack'
  const copies = fleet.placed.filter(other => {
    const where = fleet.hosts.find(({ name }) => name === other.host)
    return other.group === wanted.group && where && where.labels[label] === host.labels[label]
  }).length
  const spread = wanted.spread === undefined ? 2 / (1 + copies) : -16 * copies
  if (wanted.anchor !== undefined) return room + spread
  const size = wanted.image?.bytes ?? 8 * 2 ** 30
  const held = wanted.image !== undefined && host.mayHoldImage(wanted.image.digest)
  const image = held ? (3 * size) / (size + 8 * 2 ** 30) : 0
  const avoided = host.taints.some(
    taint => taint.effect === 'PreferNoSchedule' && !isTolerant(wanted, taint),
  )
  return room + spread + image - (avoided ? 4 : 0)
}

/** On which hosts a machine that waits keeps room. */
export function plainKeeps(
  fleet: PlainFleet,
  keeps: readonly PlainKeep[],
  wanted: Wanted,
): PlainKeep[] {
  const rank = ({ name }: HostView) =>
    mixed(hashOf(name) ^ mixed(hashOf(wanted.uid) ^ fleet.policy.seed))
  const lacks = (host: HostView) => {
    const kept = on(keeps, host).map(keep => keep.wanted)
    return lack(host, [...on(fleet.placed, host), ...kept, wanted], wanted)
  }
  const periods = Math.max(0, Math.floor((fleet.nowMs - wanted.sinceMs) / fleet.policy.widenMs))
  return fleet.hosts
    .filter(host => accepts(fleet, wanted, host) && lack(host, [wanted], wanted) === 0)
    .sort((one, other) => lacks(one) - lacks(other) || rank(one) - rank(other))
    .slice(0, Math.min(fleet.bounds.keptHosts, 2 ** periods))
    .map(({ name }) => ({ host: name, wanted }))
}

const cores = ({ request }: Demand) => Math.round(request.cpu * 1e9)
const bytes = ({ request }: Demand) => request.memoryBytes
const count = ({ request }: Demand) => request.machines
const macos = ({ machine }: Demand) => (machine === 'macos' ? 1 : 0)
const sum = (numbers: readonly number[]) => numbers.reduce((total, next) => total + next, 0)
const on = <T extends { host: string }>(list: readonly T[], { name }: HostView): T[] =>
  list.filter(({ host }) => host === name)

/** How much a host is short of for all of these, as a share; 0 when it has the room. */
function lack(host: HostView, demands: readonly Demand[], wanted: Wanted): number {
  const { cpu, memoryBytes, machines } = host.allocatable
  const kinds: [(demand: Demand) => number, number][] = [
    [cores, Math.round(cpu * 1e9)],
    [bytes, memoryBytes],
    [count, machines],
    [macos, host.macosGuestsMost],
  ]
  const lacks = kinds
    .filter(([of]) => of(wanted) > 0)
    .map(([of, all]) => Math.max(0, sum(demands.map(of)) - all) / all)
  return Math.max(0, ...lacks)
}

function accepts({ nowMs }: PlainFleet, wanted: Wanted, host: HostView): boolean {
  const refused = wanted.refusals?.some(({ host: name, untilMs }) => {
    return name === host.name && untilMs > nowMs
  })
  if (refused || !host.ready) return false
  if (wanted.anchor !== undefined) return wanted.anchor === host.name
  return (
    host.schedulable &&
    wanted.arch === host.arch &&
    (wanted.cpuFlags ?? []).every(flag => host.cpuFlags?.has(flag)) &&
    Object.entries(wanted.hostSelector ?? {}).every(([key, value]) => host.labels[key] === value) &&
    host.taints.every(taint => taint.effect !== 'NoSchedule' || isTolerant(wanted, taint))
  )
}

/** Whether a machine tolerates a taint. */
function isTolerant({ tolerations = [] }: Wanted, taint: Taint): boolean {
  return tolerations.some(({ key, operator, value = '', effect }) => {
    if (effect !== undefined && effect !== taint.effect) return false
    if (operator === 'Exists') return key === undefined || key === taint.key
    return key === taint.key && value === (taint.value ?? '')
  })
}
