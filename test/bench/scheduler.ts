import { createSeededRandom, randomInteger } from '../../base/random.ts'
import {
  createFleetState,
  defaultPolicy,
  type IndexedState,
} from '../../cluster/scheduler/fleet-state.ts'
import { schedule } from '../../cluster/scheduler/schedule.ts'
import type { HostView, Wanted } from '../../cluster/scheduler/types.ts'
import { obedientPlanner } from '../support/fleet-state.ts'
import { type Bench, type Figure, figureOf, measureInTurns, ratioOf } from './harness.ts'

const GiB = 2 ** 30
const hostCores = 24
const hostBytes = 64 * GiB
const hostsPerRack = 12
const fullShare = 0.9
/** Names of images that hosts hold and machines want; each host holds a quarter of them. */
const images = 16
const nowMs = 1_000_000_000

/** How many decisions a second the scheduler makes on one core, in fleets that are nearly full. */
export const bench: Bench = {
  timeoutMs: 10 * 60_000,
  async run(context) {
    const rounds = context.quick ? 2 : 9
    const figures: Record<string, Figure> = {}
    for (const hosts of [100, 1_000, 10_000]) {
      Object.assign(figures, await measureFleet(hosts, rounds, context))
    }
    return figures
  },
}

/**
 * Machines of many kinds find their places in a fleet that stays as full as it is, because others
 * end. Keeping: as well, while one to four machines as large as a host wait and keep room.
 * Waiting: a queue of machines that fit nowhere, gone through once. Floor: a scan over two arrays
 * for the emptiest host that fits. Time is that of the processor: others may use the machine too.
 */
async function measureFleet(
  hosts: number,
  rounds: number,
  context: Parameters<Bench['run']>[0],
): Promise<Record<string, Figure>> {
  const decisions = Math.max(1_000, Math.min(20_000, 20_000_000 / hosts))
  const full = createFleet(hosts, fullShare)
  const empty = createFleet(hosts, 0)
  const keeping = createFleet(hosts, fullShare)
  // So long that together they keep about an eighth of the hosts which are not full.
  const sinceMs = nowMs - defaultPolicy.widenMs * Math.floor(Math.log2(Math.max(1, hosts / 160)))
  for (let at = 0; at < hosts / 2_500; at++)
    keeping.want({ ...largeMachine(at), priority: 1, sinceMs })
  const floor = createFloor(hosts)
  const label = hosts.toLocaleString('en').replace(',', '_')
  const results = await measureInTurns(
    {
      full: async () => microseconds(decisions, () => decide(full, hosts, decisions)),
      empty: async () => microseconds(decisions, () => decide(empty, hosts, decisions)),
      keeping: async () => microseconds(decisions, () => decide(keeping, hosts, decisions)),
      waiting: async () => microseconds(decisions, () => pass(full, decisions)),
      floor: async () => microseconds(decisions, () => floor(decisions)),
    },
    { rounds, patienceMs: context.quick ? 0 : 15_000 },
    context,
  )
  const { full: filled = [], empty: idle = [], keeping: kept = [], waiting = [] } = results
  const least = results['floor'] ?? []
  const perSecond = (values: readonly number[]) => values.map(value => 1e6 / value)
  const target = hosts === 10_000 ? ({ value: 10_000, bound: 'atLeast' } as const) : undefined
  const of = `${hosts} hosts`
  return {
    [`decisions${label}`]: figureOf(`${of}, 90 % full`, '/s', perSecond(filled), target),
    [`decisionsEmpty${label}`]: figureOf(`${of}, empty at first`, '/s', perSecond(idle)),
    [`decisionsKeeping${label}`]: figureOf(`${of}, some keep room`, '/s', perSecond(kept)),
    [`waiting${label}`]: figureOf(`${of}, machines that fit nowhere`, '/s', perSecond(waiting)),
    [`floor${label}`]: figureOf(`${of}, a scan for room alone`, '/s', perSecond(least)),
    [`overFloor${label}`]: ratioOf(`${of}: a decision / that scan`, filled, least),
  }
}

function microseconds(count: number, work: () => void): number {
  const before = process.cpuUsage()
  work()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / count
}

const request = (cpu: number) => ({ cpu, memoryBytes: 2 * cpu * GiB, diskBytes: 0, machines: 1 })

function createHost(at: number): HostView {
  const held = new Set([0, 1, 2, 3].map(other => `image-${(at * 7 + other * 5) % images}`))
  return {
    name: `host-${at}`,
    labels: { rack: `rack-${Math.floor(at / hostsPerRack)}`, disk: at % 2 === 0 ? 'ssd' : 'nvme' },
    taints: at % 10 === 0 ? [{ key: 'gpu', effect: 'NoSchedule' }] : [],
    schedulable: at % 50 !== 1,
    ready: true,
    allocatable: { cpu: hostCores, memoryBytes: hostBytes, diskBytes: 2 ** 40, machines: 64 },
    arch: 'x86_64',
    macosGuestsMost: 2,
    mayHoldImage: digest => held.has(digest),
  }
}

/** Of 64 kinds: small and large, some with a label to go by, some to be spread, some tolerant. */
function createMachine(at: number): Wanted {
  const kind = at % 64
  return {
    uid: `00000000-0000-4000-8000-${at.toString(16).padStart(12, '0')}`,
    namespace: 'default',
    name: `machine-${at}`,
    priority: 0,
    sinceMs: nowMs - 1_000 + at / 1_000,
    request: request(1 + (kind % 3)),
    machine: 'linux',
    arch: 'x86_64',
    image: { digest: `image-${kind % images}`, bytes: 20 * GiB },
    group: `group-${kind}`,
    ...(kind % 4 === 0 ? { hostSelector: { disk: 'ssd' } } : {}),
    ...(kind % 8 === 1 ? { spread: 'rack' } : {}),
    ...(kind % 8 === 2 ? { tolerations: [{ key: 'gpu', operator: 'Exists' as const }] } : {}),
  }
}

function largeMachine(at: number): Wanted {
  return { ...createMachine(at), uid: `large-${at}`, request: request(hostCores) }
}

/** Full hosts have less than a core left; of the others a quarter is taken. */
function createFleet(hosts: number, fullPart: number): IndexedState {
  const state = createFleetState()
  const random = createSeededRandom(hosts)
  for (let at = 0; at < hosts; at++) {
    const host = createHost(at)
    state.setHost(host)
    const isFull = randomInteger(random, 1_000) < fullPart * 1_000
    const cpu = isFull ? hostCores - 0.5 : fullPart === 0 ? 0 : hostCores / 4
    const uid = `resident-${at}`
    if (cpu === 0) continue
    const group = `group-${at % 64}`
    state.occupy({ uid, host: host.name, request: request(cpu), machine: 'linux', group })
  }
  return state
}

/** Places machines in rounds of many; those of the rounds before the last end. */
function decide(state: IndexedState, hosts: number, count: number): void {
  const most = Math.min(100, hosts / 10)
  const running: string[] = []
  for (let at = 0; at < count; at += most) {
    for (let next = at; next < at + most; next++) state.want(createMachine(next))
    const { placed } = schedule(state, obedientPlanner(state), { nowMs, decisionsMost: most })
    if (placed.length !== most) throw new Error(`only ${placed.length} of ${most} were placed`)
    for (const { machine } of placed) running.push(machine.uid)
    for (const uid of running.splice(0, Math.max(0, running.length - most))) state.vacate(uid)
  }
  for (const uid of running) state.vacate(uid)
}

function pass(state: IndexedState, count: number): void {
  const waiting = Array.from({ length: count }, (_, at) => largeMachine(at))
  for (const machine of waiting) state.want(machine)
  const round = schedule(state, obedientPlanner(state), { nowMs, decisionsMost: count })
  if (round.placed.length > 0) throw new Error('a machine as large as a host was placed')
  for (const { uid } of waiting) state.unwant(uid)
}

/** The least that finding the emptiest host in plain arrays can cost. */
function createFloor(hosts: number): (count: number) => void {
  const random = createSeededRandom(hosts)
  const isFull = Array.from({ length: hosts }, () => randomInteger(random, 10) < 9)
  const cores = Float64Array.from(isFull, full => (full ? 0.5 : (hostCores * 3) / 4))
  const bytes = Float64Array.from(cores, free => free * 2 * GiB)
  return count => {
    for (let at = 0; at < count; at++) {
      const cpu = 1 + (at % 3)
      const best = emptiest(cores, bytes, cpu, cpu * 2 * GiB)
      cores[best] = (cores[best] ?? 0) - cpu
      bytes[best] = (bytes[best] ?? 0) - cpu * 2 * GiB
      // As much is given back at once: the fleet stays as full as it is.
      cores[best] = (cores[best] ?? 0) + cpu
      bytes[best] = (bytes[best] ?? 0) + cpu * 2 * GiB
    }
  }
}

function emptiest(cores: Float64Array, bytes: Float64Array, cpu: number, memory: number): number {
  let best = -1
  let most = -1
  for (let slot = 0; slot < cores.length; slot++) {
    const free = cores[slot] ?? 0
    const freeBytes = bytes[slot] ?? 0
    if (free < cpu || freeBytes < memory) continue
    const score = free / hostCores + freeBytes / hostBytes
    if (score <= most) continue
    best = slot
    most = score
  }
  return best
}
