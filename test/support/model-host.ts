import { type Clock, sleep, timestamp } from '../../base/clock.ts'
import { isFailure } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import { createWorkQueue } from '../../base/work-queue.ts'
import { createHostPlacements } from '../../cluster/fleet/host-placements.ts'
import { hostLeaseKey, hostLifeKey } from '../../cluster/fleet/keys.ts'
import type { Timing } from '../../cluster/fleet/timing.ts'
import { followObjects } from '../../cluster/object-follow.ts'
import type { Objects } from '../../cluster/objects.ts'
import { requestOf } from '../../cluster/scheduler/amounts.ts'
import type { Store } from '../../cluster/store/store.ts'
import { type Amounts, type Host, hostKind } from '../../resources/host.ts'
import { virtualMachineKind } from '../../resources/virtual-machine.ts'

/** A host that runs nothing but keeps the books of one. */
export interface ModelHost {
  name: string
  /** The machines whose guests would run. */
  running: ReadonlySet<string>
  /** Machines it refuses, by name. */
  refuses: Set<string>
  /** It neither claims nor refuses. */
  idle: boolean
  /** Gone at once, lease and all, as when its power is cut. */
  crash(): Promise<void>
}

/** What it has. */
export interface ModelHostInit {
  name: string
  allocatable?: Partial<Amounts>
  labels?: Record<string, string>
  /** It does nothing from the start. */
  idle?: boolean
  timing: Timing
}

/** What it needs. */
export interface ModelHostComponents {
  store: Store
  objects: Objects
  clock: Clock
  log: Log
}

const roomy: Amounts = { cpu: 8, memoryBytes: 32 * 2 ** 30, diskBytes: 2 ** 40, machines: 64 }

/** Tells of the host, takes a lease, and claims whatever it is assigned. */
export async function startModelHost(
  init: ModelHostInit,
  components: ModelHostComponents,
): Promise<ModelHost> {
  const { name, timing } = init
  const { store, objects, clock, log } = components
  const dying = new AbortController()
  const { signal } = dying
  const running = new Set<string>()
  const lease: { id?: string; revision?: number } = {}
  const references = new Map<string, { namespace: string; name: string }>()

  const takeLease = async (): Promise<void> => {
    const id = await store.grantLease(timing.hostLeaseTtlMs)
    const value = { hostId: name, bootId: 'boot' }
    const { revision } = await store.transaction({
      compare: [],
      operations: [
        { put: hostLeaseKey(name), value, lease: id },
        { put: hostLifeKey(name), value },
      ],
    })
    const { entry } = await store.get(hostLeaseKey(name))
    Object.assign(lease, { id, revision: entry?.createRevision ?? revision })
  }
  const keepLease = async (): Promise<void> => {
    while (!signal.aborted) {
      await sleep(clock, timing.renewalPeriodMs, signal).catch(() => {})
      if (signal.aborted) return
      await store.renewLease(lease.id ?? '').catch(async error => {
        if (isFailure(error, 'leaseNotFound')) await takeLease()
      })
    }
  }
  const host: ModelHost = {
    name,
    running,
    refuses: new Set(),
    idle: init.idle ?? false,
    async crash() {
      dying.abort()
      running.clear()
      await Promise.all([placements.stop(), following.stop(), queue.stop()])
    },
  }
  const handle = async (uid: string): Promise<undefined> => {
    const placement = placements.of(uid)
    const reference = references.get(uid) ?? placement
    if (reference === undefined || signal.aborted || host.idle) return
    if (placement?.host !== name) return void running.delete(uid)
    if (placement.state === 'Lost' || placement.state === 'Gone') return void running.delete(uid)
    const found = await objects.find(virtualMachineKind, reference)
    const machine = found?.metadata.uid === uid ? found : undefined
    if (machine === undefined) {
      running.delete(uid)
      return (await placements.remove(uid)) as undefined
    }
    if (machine.metadata.deletionTimestamp !== undefined) {
      if (placement.state === 'Refused') return
      running.delete(uid)
      const finalizer = virtualMachineKind.finalizer ?? ''
      await objects.releaseFinalizer(virtualMachineKind, machine.metadata, finalizer, uid)
      return (await placements.remove(uid)) as undefined
    }
    const runs = machine.spec.powerState === 'Running'
    if (placement.state === 'Assigned') {
      if (host.refuses.has(machine.metadata.name)) {
        await placements.refuse(uid, { reason: 'HostFull', message: 'it has no room' })
        return
      }
      if (!runs) return void (await placements.rest(uid))
      await placements.claim(uid, machine.spec.onHostLoss)
      running.add(uid)
    } else if (placement.state === 'Claimed') {
      if (!runs) {
        running.delete(uid)
        await placements.rest(uid)
      } else if (!running.has(uid)) {
        await placements.claim(uid, machine.spec.onHostLoss)
        running.add(uid)
      }
    } else if (placement.state === 'Resting' && runs) {
      await placements.wake(uid, requestOf(machine))
    }
    if (!running.has(uid)) return
    const phase = 'Running' as const
    await objects.changeStatus(
      virtualMachineKind,
      machine.metadata,
      status => ({ ...status, phase, host: name, conditions: [] }),
      { uid },
    )
  }
  const queue = createWorkQueue({ handle, backoff: { firstMs: 100, mostMs: 2_000 } }, components)

  await takeLease()
  await tellOf(init, components)
  const placements = createHostPlacements(
    {
      host: name,
      leaseRevision: () => lease.revision,
      onChange: uid => queue.add(uid),
    },
    components,
  )
  const following = followObjects(virtualMachineKind, components, ({ metadata }) => {
    const { uid = '', namespace = '' } = metadata
    references.set(uid, { namespace, name: metadata.name })
    if (running.has(uid) || placements.of(uid)?.host === name) queue.add(uid)
  })
  void keepLease()
  log.debug({ host: name }, 'a model of a host has started')
  return host
}

async function tellOf(init: ModelHostInit, components: ModelHostComponents): Promise<void> {
  const { objects, clock } = components
  const { name, labels } = init
  const reference = { name }
  const found = await objects.find(hostKind, reference)
  if (found === undefined) {
    const metadata = { name, ...(labels && { labels }) }
    const host: Host = {
      apiVersion: 'macfleet.dev/v1',
      kind: 'Host',
      metadata,
      spec: { schedulable: true },
    }
    await objects.create(hostKind, host)
  }
  const lastTransitionTime = timestamp(clock)
  const ready = { type: 'Ready', status: 'True', reason: 'Ready', message: '' } as const
  await objects.changeStatus(hostKind, reference, () => ({
    allocatable: { ...roomy, ...init.allocatable },
    arch: 'x86_64',
    conditions: [{ ...ready, lastTransitionTime }],
  }))
}
