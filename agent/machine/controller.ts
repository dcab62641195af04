import { existsSync } from 'node:fs'
import { preciseTimestamp, timestamp } from '../../base/clock.ts'
import { isFailure, MacfleetError, messageOf } from '../../base/errors.ts'
import { createTurns } from '../../base/turns.ts'
import { type Again, createWorkQueue, type WorkQueue } from '../../base/work-queue.ts'
import { isRemoved } from '../../cluster/fleet/era.ts'
import { createHostPlacements, type HostPlacements } from '../../cluster/fleet/host-placements.ts'
import { isAnchored } from '../../cluster/fleet/placement.ts'
import { type Following, followObjects } from '../../cluster/object-follow.ts'
import { guestFolder } from '../../kvm/guest-folder.ts'
import { parseDurationMs } from '../../resources/duration.ts'
import { hostKind } from '../../resources/host.ts'
import { imageKind } from '../../resources/image.ts'
import { type VirtualMachine, virtualMachineKind } from '../../resources/virtual-machine.ts'
import { etcdProcessName } from '../etcd/etcd-name.ts'
import { decide, type Standing, type Step } from './decide.ts'
import { followGuardian, type GuardianFollowing, isAboutProcesses } from './guardian-follow.ts'
import { openRuntime } from './guest-runtime.ts'
import { dropFetch } from './image-fetch.ts'
import type { MachineContext } from './machine-context.ts'
import { createMachineMetrics, type MachineMetrics } from './metrics.ts'
import { isOfThisHost } from './obstacle.ts'
import { closeArrival, resumeArrival } from './open-arrival.ts'
import { ProcessBook } from './process-book.ts'
import { type GuestRecord, readRecords } from './record.ts'
import {
  type RecoveryReport,
  recoveryWaitMs,
  startRecoveryReport,
  whileRecovering,
} from './recovery.ts'
import { evictGuest, releaseGuest, releaseLeftovers } from './remove.ts'
import { situationOf } from './situation.ts'
import { isTold, standingOf } from './standing.ts'
import { statusOf, type View } from './status.ts'
import { clearObstacle, performStep } from './steps.ts'
import { newTracked, type Tracked } from './tracked.ts'

/** Makes the guests of this host what their machines in the store say, on and on. */
export interface MachineController {
  /** The machine of this host with that uid, if it answers for it. */
  find(uid: string): Tracked | undefined
  /** Looks at every machine again; for when something that all depend on has changed. */
  wake(): void
  /** Lets go of all guests, which run on. */
  stop(): Promise<void>
}

/** After an obstacle the start is tried again, at the latest so often. */
const obstacleRetryMs = 5000
/** Of an obstacle's message: a program's whole output is for the log. */
const messageLength = 4096
/** A handler makes so many steps in a row before others get their turn. */
const stepsInARow = 8

/** Adopts the guests that run and begins to work. */
export async function startMachineController(context: MachineContext): Promise<MachineController> {
  const controller = new Controller(context)
  await controller.start()
  return controller
}

class Controller implements MachineController {
  readonly #context: MachineContext
  readonly #queue: WorkQueue
  readonly #tracked = new Map<string, Tracked>()
  readonly #processes = new ProcessBook()
  readonly #choosing = createTurns()
  readonly #metrics: MachineMetrics
  readonly #followings: Following[] = []
  readonly #placements: HostPlacements
  #hostDrains = false
  #endLease = () => {}
  #guardian: GuardianFollowing | undefined
  #recovery: RecoveryReport | undefined

  constructor(context: MachineContext) {
    this.#context = context
    this.#queue = createWorkQueue(
      { handle: uid => this.#handle(uid), backoff: { firstMs: 200, mostMs: 10_000 } },
      context,
    )
    const phases = () => [...this.#tracked.values()].flatMap(({ phase }) => phase ?? [])
    this.#metrics = createMachineMetrics(context.metrics, phases)
    const { leaseRevision } = context.lease
    this.#placements = createHostPlacements(
      { host: context.host.name, leaseRevision, onChange: uid => this.#onPlacement(uid) },
      context,
    )
  }

  async start(): Promise<void> {
    const { host, log } = this.#context
    for (const record of await readRecords(host.roots, log)) this.#track(record, record)
    const isHere = (uid: string) => existsSync(guestFolder(host.roots, uid).path)
    await releaseLeftovers(isHere, this.#context.images)
    this.#guardian = await followGuardian(
      {
        processes: this.#processes,
        onExit: uid => this.#queue.add(uid),
        onListed: () => this.#onListed(),
      },
      this.#context,
    )
    this.#recovery = startRecoveryReport(
      {
        host: host.name,
        recovery: this.#context.recovery,
        isReady: () => this.#guardian?.isTrue() ?? false,
        tracked: () => this.#tracked.values(),
        runs: uid => this.#runs(uid),
      },
      { ...this.#context, placements: this.#placements },
    )
    this.#endLease = this.#context.lease.onChange(() => this.wake())
    // Whom the first list woke found no guardian yet, and not all are in the store to be seen.
    this.wake()
    this.#followings.push(
      followObjects(virtualMachineKind, this.#context, machine => this.#onMachine(machine)),
      followObjects(imageKind, this.#context, () => this.#wakeHindered()),
      followObjects(hostKind, this.#context, ({ metadata, spec }) => {
        if (metadata.name === host.name) this.#setDraining(spec.drain ?? false)
      }),
    )
  }

  find(uid: string): Tracked | undefined {
    return this.#tracked.get(uid)
  }

  wake(): void {
    for (const uid of this.#tracked.keys()) this.#queue.add(uid)
  }

  async stop(): Promise<void> {
    this.#guardian?.stop()
    this.#endLease()
    await this.#recovery?.stop()
    await Promise.all([this.#placements, ...this.#followings].map(one => one.stop()))
    const all = [...this.#tracked.values()]
    for (const tracked of all) tracked.stopping?.abort()
    await this.#queue.stop()
    for (const tracked of all) dropFetch(tracked)
    await Promise.all(all.flatMap(tracked => [tracked.runtime?.close(), closeArrival(tracked)]))
  }

  #wakeHindered(): void {
    for (const { uid, obstacle } of this.#tracked.values()) if (obstacle) this.#queue.add(uid)
  }

  #setDraining(drains: boolean): void {
    if (drains === this.#hostDrains) return
    this.#hostDrains = drains
    this.wake()
  }

  /** All that run count before the first that waits is started: what they have is not free. */
  #onListed(): void {
    const { reservations, log } = this.#context
    for (const { name: uid, ended } of this.#processes.all()) {
      if (uid === etcdProcessName) continue
      const tracked = this.#tracked.get(uid)
      if (tracked === undefined) {
        log.error({ uid }, 'the guardian has a process of no guest that is known here')
      } else if (ended === undefined && tracked.record?.request !== undefined) {
        reservations.adopt(uid, tracked.record.request)
      }
    }
    this.wake()
  }

  #onMachine({ metadata: { uid } }: VirtualMachine): void {
    if (uid !== undefined && this.#tracked.has(uid)) this.#queue.add(uid)
  }

  /** A machine is this host's business when it was given to it, or something of it is here. */
  #onPlacement(uid: string): void {
    const placement = this.#placements.of(uid)
    if (placement?.host === this.#context.host.name && !this.#tracked.has(uid)) {
      if (standingOf(placement, undefined, placement.host) === 'elsewhere') return
      this.#track(placement, undefined)
    }
    if (this.#tracked.has(uid)) this.#queue.add(uid)
  }

  #track(
    machine: { uid: string; namespace: string; name: string },
    record: GuestRecord | undefined,
  ): void {
    const folder = guestFolder(this.#context.host.roots, machine.uid)
    this.#tracked.set(machine.uid, newTracked(machine, folder, record))
  }

  async #handle(uid: string): Promise<Again> {
    const tracked = this.#tracked.get(uid)
    if (tracked === undefined || !this.#guardian?.isTrue()) return undefined
    this.#adopt(tracked)
    if (this.#standing(tracked) === 'elsewhere') {
      return this.#recovers() ? { againMs: recoveryWaitMs } : await this.#evict(tracked)
    }
    const machine = await this.#machineOf(tracked)
    if (machine === undefined) return await this.#withoutMachine(tracked)
    let step: Step = { kind: 'rest' }
    for (let count = 0; count < stepsInARow; count++) {
      this.#adopt(tracked)
      const standing = this.#standing(tracked)
      if (standing === 'elsewhere') return { againMs: 0 }
      step = decide(situationOf(machine, tracked, this.#surroundings(uid, standing)))
      if (this.#recovers()) step = whileRecovering(step)
      const goOn = await this.#perform(step, tracked, machine)
      if (step.kind === 'destroy') {
        this.#tracked.delete(uid)
        this.#wakeHindered()
        return undefined
      }
      if (!goOn) break
    }
    if (isTold(this.#standing(tracked))) await this.#tellStatus(tracked, step)
    return this.#nextLook(tracked, machine, step)
  }

  #recovers(): boolean {
    return this.#context.recovery() !== undefined
  }

  #standing({ uid, record }: Tracked): Standing | 'elsewhere' {
    if (!this.#placements.isKnown()) return 'unknown'
    const { host, hasPeers } = this.#context
    return standingOf(this.#placements.of(uid), record, host.name, hasPeers)
  }

  /** Removes what is here of a machine that is not this host's, or no longer with that disk. */
  async #evict(tracked: Tracked): Promise<Again> {
    const { uid, namespace, name } = tracked
    const isGone = await evictGuest(tracked, { ...this.#context, processes: this.#processes })
    if (!isGone) return undefined
    this.#context.log.info({ uid, namespace, name }, 'removed a guest that belongs here no more')
    this.#tracked.delete(uid)
    this.#wakeHindered()
    // It may have been given to this host once more.
    this.#onPlacement(uid)
    return undefined
  }

  /**
   * A guest whose machine is not in the store is neither started, stopped nor removed: a deletion
   * goes through the finalizer, so a machine can't be missing unless the store lost it. But in a
   * fleet it may have been lost with this host, and deleted while that was away.
   */
  async #withoutMachine(tracked: Tracked): Promise<Again> {
    const { uid, namespace, name, folder, record } = tracked
    if (record === undefined && this.#processes.get(uid) === undefined) {
      // Deleted before anything was made of it, or we died between its deletion and this.
      await releaseGuest(uid, this.#context)
      // The leader removes the placement: what is read here may be old, and the machine there.
      if (this.#placements.of(uid) !== undefined) return { againMs: obstacleRetryMs }
      this.#tracked.delete(uid)
      return undefined
    }
    const era = record?.era
    if (era !== undefined && (await isRemoved(tracked, era, this.#context.store))) {
      return await this.#evict(tracked)
    }
    const fields = { uid, namespace, name, folder: folder.path }
    this.#context.log.error(fields, 'this host has a guest whose machine is not in the store')
    return undefined
  }

  async #machineOf(tracked: Tracked): Promise<VirtualMachine | undefined> {
    const { namespace, name, uid } = tracked
    const machine = await this.#context.objects.find(virtualMachineKind, { namespace, name })
    return machine?.metadata.uid === uid ? machine : undefined
  }

  #surroundings(uid: string, standing: Standing) {
    const { clock } = this.#context
    return {
      process: this.#processes.get(uid),
      nowMs: clock.wallMs(),
      monotonicMs: clock.monotonicMs(),
      diskHasRoom: this.#context.diskHasRoom(),
      standing,
      placement: this.#placements.of(uid),
      leaseRevision: this.#context.lease.leaseRevision(),
      hostDrains: this.#hostDrains,
    }
  }

  #runs(uid: string): boolean {
    const process = this.#processes.get(uid)
    return process !== undefined && process.ended === undefined
  }

  /** Takes control of a QEMU that runs: just started, or found after a restart of the daemon. */
  #adopt(tracked: Tracked): void {
    if (!this.#runs(tracked.uid) || tracked.runtime !== undefined) return
    const request = tracked.record?.request
    if (request !== undefined) this.#context.reservations.adopt(tracked.uid, request)
    clearObstacle(tracked)
    const onChange = (): void => this.#queue.add(tracked.uid)
    tracked.runtime = openRuntime({ tracked, onChange }, this.#context)
    resumeArrival({ tracked, onChange }, this.#context)
  }

  /** @returns whether to decide again at once */
  async #perform(step: Step, tracked: Tracked, machine: VirtualMachine): Promise<boolean> {
    try {
      return await performStep(step, tracked, machine, {
        ...this.#context,
        processes: this.#processes,
        metrics: this.#metrics,
        choosing: this.#choosing,
        placements: this.#placements,
        records: () => this.#records(),
        wake: () => this.#queue.add(tracked.uid),
        wakeHindered: () => this.#wakeHindered(),
      })
    } catch (error) {
      if (isAboutProcesses(error)) this.#guardian?.doubt()
      if (step.kind !== 'start') throw error
      // What has changed is heard of by itself.
      if (!isFailure(error, 'placementChanged')) await this.#hinder(tracked, machine, error)
      return false
    }
  }

  /** A start that could not be: told in the machine's conditions and tried again later. */
  async #hinder(tracked: Tracked, machine: VirtualMachine, error: unknown): Promise<void> {
    const known = error instanceof MacfleetError ? error.code : 'startFailed'
    const reason = known.charAt(0).toUpperCase() + known.slice(1)
    const message = messageOf(error).slice(0, messageLength)
    // Amounts that are free change from try to try: that is not news.
    const isNew = tracked.obstacle?.reason !== reason
    tracked.obstacle = { reason, message }
    this.#context.reservations.release(tracked.uid)
    if (this.#mayRefuse(tracked, error)) {
      await this.#placements.refuse(tracked.uid, { reason, message })
    }
    if (!isNew) return
    this.#context.log.warn({ uid: tracked.uid, reason, message }, 'a machine could not be started')
    this.#context.events.record(machine, { type: 'Warning', reason, message })
  }

  /** Of what is in the way here, and not elsewhere, others are asked; not once it has run here. */
  #mayRefuse({ uid, record }: Tracked, error: unknown): boolean {
    const placement = this.#placements.of(uid)
    if (!this.#context.hasPeers || placement === undefined) return false
    if (!isOfThisHost(error)) return false
    if (placement.state === 'Assigned') return !isAnchored(placement)
    // Claimed, but ports or firmware were found missing only then: nothing is on its disk yet.
    const neverRan = record?.lastExit === undefined && (record?.runs ?? 0) <= 1
    const isNew = placement.state === 'Claimed' && placement.diskEpoch === placement.epoch
    return isNew && neverRan && this.#processes.get(uid) === undefined
  }

  #records(): GuestRecord[] {
    return [...this.#tracked.values()].flatMap(({ record }) => (record ? [record] : []))
  }

  #viewOf(tracked: Tracked, step: Step): View {
    const { host } = this.#context
    const process = this.#processes.get(tracked.uid)
    const { runtime } = tracked
    return {
      host: host.name,
      // An end counts when it was collected: until then nobody knows what it means.
      alive: process !== undefined,
      pulling: tracked.fetch !== undefined,
      arrival: tracked.arrival?.view(),
      diskHasRoom: this.#context.diskHasRoom(),
      runState: runtime?.runState(),
      // Until its end was collected: a guest that we are ending is not ready, whatever it last
      // said.
      stopping: tracked.stopping !== undefined || tracked.record?.intent !== undefined,
      obstacle: tracked.obstacle,
      willStart: ['start', 'wait', 'askForRoom'].includes(step.kind),
      accelerator: host.accelerator.accelerator,
      address: runtime?.address(),
      answered: runtime?.answered() ?? false,
      agentConnected: runtime?.agentConnected() ?? false,
    }
  }

  async #tellStatus(tracked: Tracked, step: Step): Promise<void> {
    const { objects, clock } = this.#context
    const view = this.#viewOf(tracked, step)
    const { namespace, name } = tracked
    const tell = (machine: VirtualMachine) => {
      const status = statusOf(machine, tracked.record, view, timestamp(clock))
      tracked.phase = status.phase
      return status
    }
    try {
      await objects.changeStatus(
        virtualMachineKind,
        { namespace, name },
        (_, current) => tell(current),
        { uid: tracked.uid },
      )
    } catch (error) {
      if (!isFailure(error, 'notFound')) throw error
    }
  }

  async #nextLook(tracked: Tracked, machine: VirtualMachine, step: Step): Promise<Again> {
    const waits: number[] = []
    if (step.kind === 'wait') waits.push(step.forMs)
    if (tracked.obstacle !== undefined) waits.push(obstacleRetryMs)
    const leftMs = await this.#lifeLeftMs(machine)
    if (leftMs !== undefined) waits.push(leftMs)
    // setTimeout's longest wait is 2^31 - 1 ms; looking once an hour is early enough for anything.
    return waits.length === 0 ? undefined : { againMs: Math.min(...waits, 3_600_000) }
  }

  /** What is left of a machine's ttl; one whose time is up is deleted. */
  async #lifeLeftMs(machine: VirtualMachine): Promise<number | undefined> {
    const { ttl } = machine.spec
    const { creationTimestamp, deletionTimestamp, uid } = machine.metadata
    if (ttl === undefined || creationTimestamp === undefined || deletionTimestamp) return undefined
    const { clock, objects, events } = this.#context
    const leftMs = Date.parse(creationTimestamp) + (parseDurationMs(ttl) ?? 0) - clock.wallMs()
    if (leftMs > 0) return leftMs
    const message = `Its time to live of ${ttl} is over (${preciseTimestamp(clock)})`
    events.record(machine, { type: 'Normal', reason: 'Expired', message })
    await objects.remove(virtualMachineKind, machine.metadata, uid === undefined ? {} : { uid })
    return undefined
  }
}
