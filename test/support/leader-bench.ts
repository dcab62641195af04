import { onTestFinished } from 'vitest'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createManualClock, type ManualClock } from '../../base/manual-clock.ts'
import { createMetrics } from '../../base/metrics.ts'
import { createSeededRandom } from '../../base/random.ts'
import { createEventRecorder } from '../../cluster/event-recorder.ts'
import { type FactsView, noFacts } from '../../cluster/fleet/facts.ts'
import { memberKey, placementPrefix } from '../../cluster/fleet/keys.ts'
import { type Placement, placementOf } from '../../cluster/fleet/placement.ts'
import { defaultTiming } from '../../cluster/fleet/timing.ts'
import { startLeader } from '../../cluster/leader/leader.ts'
import type { Leadership } from '../../cluster/leader/leadership.ts'
import { createLeaderMetrics } from '../../cluster/leader/metrics.ts'
import { createObjects, type Objects } from '../../cluster/objects.ts'
import { createMemoryStore } from '../../cluster/store/memory.ts'
import type { Store } from '../../cluster/store/store.ts'
import { eventKind } from '../../resources/event.ts'
import type { Metadata } from '../../resources/metadata.ts'
import { namespaceKind } from '../../resources/namespace.ts'
import { type VirtualMachine, virtualMachineKind } from '../../resources/virtual-machine.ts'
import { type ModelHost, type ModelHostInit, startModelHost } from './model-host.ts'

/** A fleet in memory: leaders that are real, hosts that are models, and time moved by hand. */
export interface LeaderBench {
  clock: ManualClock
  store: Store
  objects: Objects
  /** A host that campaigns for leadership, with a store of its own in between, if one is given. */
  leader(name: string, through?: Store, facts?: FactsView): Leadership
  host(init: Partial<ModelHostInit> & { name: string }): Promise<ModelHost>
  member(name: string): Promise<void>
  machine(name: string, spec?: object, metadata?: Partial<Metadata>): Promise<VirtualMachine>
  find(name: string): Promise<VirtualMachine | undefined>
  placements(): Promise<Placement[]>
  placement(name: string): Promise<Placement | undefined>
  /** What was recorded, as reasons. */
  events(name: string): Promise<string[]>
  /** Moves time on until it holds. @throws when it does not within so many milliseconds */
  until(holds: () => Promise<unknown> | unknown, mostMs?: number): Promise<void>
}

/** Prepares it; everything ends with the running test. */
export async function leaderBench(): Promise<LeaderBench> {
  const clock = createManualClock()
  const random = createSeededRandom(7)
  // A burst is a burst of watch events too.
  const limits = { ...defaultLimits, watchBacklog: 100_000, storeHistory: 100_000 }
  const common = { clock, random, limits, log: silentLog }
  const store = createMemoryStore(common)
  const objects = createObjects({}, { ...common, store })
  const metadata = { name: 'default' }
  await objects.create(namespaceKind, { apiVersion: 'v1', kind: 'Namespace', metadata })
  const timing = defaultTiming
  const placements = async () => (await store.list(placementPrefix)).entries.map(placementOf)
  onTestFinished(() => store.close())

  return {
    clock,
    store,
    objects,
    placements,
    leader(host, through = store, facts = noFacts) {
      const events = createEventRecorder(
        { component: 'macfleetd', host, windowMs: 60_000 },
        { ...common, objects },
      )
      const own = through === store ? objects : createObjects({}, { ...common, store: through })
      const metrics = createLeaderMetrics(createMetrics())
      const leadership = startLeader(
        { host, timing, fenced: true },
        { ...common, store: through, objects: own, facts, events, metrics },
      )
      onTestFinished(async () => void leadership.stop())
      return leadership
    },
    host: init => startModelHost({ timing, ...init }, { ...common, store, objects }),
    async member(name) {
      const value = { name, state: 'Approved' }
      await store.transaction({ compare: [], operations: [{ put: memberKey(name), value }] })
    },
    machine(name, spec = {}, metadata = {}) {
      const object: unknown = {
        apiVersion: 'macfleet.dev/v1',
        kind: 'VirtualMachine',
        metadata: { name, namespace: 'default', ...metadata },
        spec: { image: 'micro', ...spec },
      }
      return objects.create(virtualMachineKind, object as VirtualMachine)
    },
    find: name => objects.find(virtualMachineKind, { namespace: 'default', name }),
    placement: async name => (await placements()).find(one => one.name === name),
    async events(name) {
      const { items } = await objects.list(eventKind, { namespace: 'default' })
      return items.flatMap(({ involvedObject, reason = '' }) =>
        involvedObject.name === name ? reason : [],
      )
    },
    async until(holds, mostMs = 20_000) {
      const endMs = clock.monotonicMs() + mostMs
      for (;;) {
        await clock.advance(0)
        if (await holds()) return
        if (clock.monotonicMs() >= endMs) throw new Error(`not so within ${mostMs} ms`)
        await clock.advance(20)
      }
    },
  }
}
