import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createMetrics } from '../../base/metrics.ts'
import { systemRandom } from '../../base/random.ts'
import { createEventRecorder } from '../../cluster/event-recorder.ts'
import { noFacts } from '../../cluster/fleet/facts.ts'
import { hostLeaseKey, hostLifeKey, placementPrefix } from '../../cluster/fleet/keys.ts'
import { defaultTiming } from '../../cluster/fleet/timing.ts'
import { startLeader } from '../../cluster/leader/leader.ts'
import { createLeaderMetrics } from '../../cluster/leader/metrics.ts'
import { createObjects, type Objects } from '../../cluster/objects.ts'
import { openEtcdStore } from '../../cluster/store/etcd.ts'
import type { Entry, Store } from '../../cluster/store/store.ts'
import { hostKind } from '../../resources/host.ts'
import { namespaceKind } from '../../resources/namespace.ts'
import { type VirtualMachine, virtualMachineKind } from '../../resources/virtual-machine.ts'
import { startTestEtcdCluster } from '../support/etcd.ts'
import { until } from '../support/host.ts'
import { type Bench, type BenchContext, figureOf, measureInTurns, ratioOf } from './harness.ts'

const hosts = 100
/** Assignments of one transaction of the leader, and transactions of a round of it (placing.ts). */
const batchParts = 40
const batches = 8
const writersMost = 64
const placedMs = 60_000
const parts = { clock: systemClock, random: systemRandom, log: silentLog, limits: defaultLimits }

/**
 * Placements that are committed to a real etcd of three members on this machine: thousands of
 * machines wait, and a leader as it is in service, with its view, its events and its fence, gives
 * them to hosts. Beside it, through the same client: etcd's own rate, in transactions that write
 * one placement each, as many under way as the leader has placements under way; and the rate at
 * which etcd takes the leader's batches when they only have to be sent.
 */
export const bench: Bench = {
  timeoutMs: 15 * 60_000,
  async run(context) {
    const machines = context.quick ? 960 : 3_840
    const rounds = context.quick ? 2 : 7
    const fleet = await prepare(machines, context)
    const sample = await fleet.place().then(() => fleet.sample())
    const results = await measureInTurns(
      {
        placed: async () => {
          await fleet.clear()
          return await fleet.place()
        },
        single: () => write(fleet.store, sample, machines, 1, batchParts * batches),
        batched: () => write(fleet.store, sample, machines, batchParts, batches),
      },
      { rounds, patienceMs: context.quick ? 0 : 60_000 },
      context,
    )
    const { placed = [], single = [], batched = [] } = results
    const target = { value: 0.5, bound: 'atLeast' } as const
    const of = `etcd of 3 members, ${hosts} hosts, ${machines} machines that wait`
    return {
      placementsCommitted: figureOf(`placements committed, ${of}`, '/s', placed),
      etcdTransactions: figureOf(
        'etcd: transactions that write one placement, 320 under way',
        '/s',
        single,
      ),
      placementsOverEtcd: ratioOf('placements / these transactions', placed, single, target),
      etcdBatched: figureOf('etcd: placements in 8 transactions of 40', '/s', batched),
      placementsOverBatched: ratioOf('placements / placements so written', placed, batched),
    }
  },
}

interface WaitingFleet {
  store: Store
  /** Takes all placements away. */
  clear(): Promise<void>
  /** Leads until all are placed. @returns placements a second, the first round's left out */
  place(): Promise<number>
  /** A placement as the leader wrote it. */
  sample(): Promise<Entry>
}

async function prepare(machines: number, { say, afterwards }: BenchContext): Promise<WaitingFleet> {
  const etcd = await startTestEtcdCluster(3)
  afterwards(() => etcd.stop())
  const connection = await etcd.connect()
  const store = openEtcdStore({ connection, revisionBase: 0 }, parts)
  afterwards(() => store.close())
  const objects = createObjects({}, { ...parts, store })
  const metadata = { name: 'default' }
  await objects.create(namespaceKind, { apiVersion: 'v1', kind: 'Namespace', metadata })
  await inParallel(hosts, writersMost, at => createHost(`host-${at}`, store, objects))
  say(`making ${machines} machines`)
  await inParallel(machines, writersMost, at => createMachine(at, objects))
  const place = async (): Promise<number> => {
    const placedAtMs: number[] = []
    const leadership = lead(store, objects, () => void placedAtMs.push(performance.now()))
    try {
      const isDone = () => (placedAtMs.length >= machines ? true : undefined)
      await until(`${machines} machines are placed`, isDone, placedMs)
    } finally {
      await leadership.stop()
    }
    const round = batchParts * batches
    const spanMs = (placedAtMs[machines - 1] ?? 0) - (placedAtMs[round - 1] ?? 0)
    return ((machines - round) / spanMs) * 1000
  }
  const placements = async () => (await store.list(placementPrefix)).entries
  return {
    store,
    place,
    async clear() {
      const keys = (await placements()).map(({ key }) => key)
      for (let from = 0; from < keys.length; from += 100) {
        const operations = keys.slice(from, from + 100).map(key => ({ delete: key }))
        await store.transaction({ compare: [], operations })
      }
    },
    async sample() {
      const [entry] = await placements()
      if (entry === undefined) throw new Error('nothing was placed')
      return entry
    },
  }
}

function lead(store: Store, objects: Objects, onPlaced: () => void) {
  const events = createEventRecorder(
    { component: 'macfleetd', host: 'host-0', windowMs: 60_000 },
    { ...parts, objects },
  )
  const metrics = createLeaderMetrics(createMetrics())
  return startLeader(
    { host: 'host-0', timing: defaultTiming, fenced: true },
    { ...parts, store, objects, events, facts: noFacts, metrics: { ...metrics, placed: onPlaced } },
  )
}

/** A host that lives and is empty; nothing of it runs. */
async function createHost(name: string, store: Store, objects: Objects): Promise<void> {
  const type = { apiVersion: 'macfleet.dev/v1', kind: 'Host' } as const
  await objects.create(hostKind, { ...type, metadata: { name }, spec: { schedulable: true } })
  const lastTransitionTime = new Date().toISOString()
  const ready = { type: 'Ready', status: 'True', reason: 'Ready', message: '' } as const
  await objects.changeStatus(hostKind, { name }, () => ({
    allocatable: { cpu: 64, memoryBytes: 2 ** 38, diskBytes: 2 ** 40, machines: 64 },
    arch: 'x86_64',
    conditions: [{ ...ready, lastTransitionTime }],
  }))
  const value = { hostId: name, bootId: 'boot' }
  // Longer than the bench: nobody renews it.
  const lease = await store.grantLease(3_600_000)
  await store.transaction({
    compare: [],
    operations: [
      { put: hostLeaseKey(name), value, lease },
      { put: hostLifeKey(name), value },
    ],
  })
}

async function createMachine(at: number, objects: Objects): Promise<void> {
  const machine: unknown = {
    apiVersion: 'macfleet.dev/v1',
    kind: 'VirtualMachine',
    metadata: { name: `machine-${at}`, namespace: 'default' },
    spec: { image: 'micro', cpu: '1', memory: '2Gi', onHostLoss: 'Replace' },
  }
  await objects.create(virtualMachineKind, machine as VirtualMachine)
}

/**
 * Writes records like a placement, each compared as the leader compares, `together` in a
 * transaction.
 * @returns records a second
 */
async function write(
  store: Store,
  { value }: Entry,
  records: number,
  together: number,
  underWay: number,
): Promise<number> {
  const run = `bench/${performance.now()}/`
  const record = (at: number) => `${run}${at}`
  const beganMs = performance.now()
  await inParallel(records / together, underWay, async batch => {
    const keys = Array.from({ length: together }, (_, at) => record(batch * together + at))
    const { succeeded } = await store.transaction({
      compare: [
        { key: 'bench', modRevision: 0 },
        ...keys.flatMap(key => [
          { key, modRevision: 0 },
          { key: `${key}/machine`, modRevision: 0 },
        ]),
      ],
      operations: keys.map(key => ({ put: key, value })),
    })
    if (!succeeded) throw new Error('a record was there already')
  })
  return (records / (performance.now() - beganMs)) * 1000
}

/** Does it `count` times, so many at once. */
async function inParallel(
  count: number,
  most: number,
  work: (at: number) => Promise<void>,
): Promise<void> {
  let next = 0
  const worker = async (): Promise<void> => {
    while (next < count) await work(next++)
  }
  await Promise.all(Array.from({ length: Math.min(most, count) }, worker))
}
