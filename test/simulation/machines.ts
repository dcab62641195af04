import { isDeepStrictEqual } from 'node:util'
import { createReservations, type Reservations } from '../../agent/capacity.ts'
import type { Guardian } from '../../agent/guardian/client.ts'
import type { HeldLease } from '../../agent/host-lease.ts'
import { afterExit, judge } from '../../agent/machine/collect.ts'
import { decide, type Standing, type Step } from '../../agent/machine/decide.ts'
import { followGuardian, type GuardianFollowing } from '../../agent/machine/guardian-follow.ts'
import { ProcessBook } from '../../agent/machine/process-book.ts'
import { type GuestRecord, newRecord } from '../../agent/machine/record.ts'
import type { Runtime } from '../../agent/machine/runtime.ts'
import { situationOf } from '../../agent/machine/situation.ts'
import { standingOf } from '../../agent/machine/standing.ts'
import { newTracked, type Tracked } from '../../agent/machine/tracked.ts'
import { timestamp } from '../../base/clock.ts'
import { failure, isFailure, messageOf } from '../../base/errors.ts'
import { type Again, createWorkQueue, type WorkQueue } from '../../base/work-queue.ts'
import { readEra } from '../../cluster/fleet/era.ts'
import { createHostPlacements, type HostPlacements } from '../../cluster/fleet/host-placements.ts'
import { isAnchored, takesRoom } from '../../cluster/fleet/placement.ts'
import { followObjects } from '../../cluster/object-follow.ts'
import type { Objects } from '../../cluster/objects.ts'
import { requestOf } from '../../cluster/scheduler/amounts.ts'
import type { Store } from '../../cluster/store/store.ts'
import { guestFolder } from '../../kvm/guest-folder.ts'
import { type Amounts, hostKind } from '../../resources/host.ts'
import {
  restartedAtAnnotation,
  startedAtAnnotation,
  type VirtualMachine,
  virtualMachineKind,
} from '../../resources/virtual-machine.ts'
import type { Actor } from './actor.ts'
import { tellStatus } from './machine-status.ts'

/** The records of a host's guests: what is left of them on its disk. */
export type GuestDisk = Map<string, GuestRecord>

/** What drives the machines of a host. */
export interface MachinesComponents {
  host: string
  allocatable: Amounts
  actor: Actor
  store: Store
  objects: Objects
  guardian: Guardian
  lease: HeldLease
  disk: GuestDisk
  /** Asks a guest to shut down: it ends by itself, after a while. */
  shutDown(uid: string): void
}

const stepsInARow = 8
const obstacleRetryMs = 5_000
/** What the driver gives for QMP: a guest that runs. */
const running = { connected: true, runState: 'running' }
const runtime = { guest: { status: () => running } } as unknown as Runtime
const roots = { dataRoot: '/simulated', runRoot: '/simulated' }

/**
 * The thinnest driver around the real decisions of a host: standingOf, situationOf, decide, judge,
 * afterExit, the placements and the book of processes. In it each step is what
 * agent/machine/controller.ts and steps.ts do, in the same order, without files, images and QMP.
 */
export class Machines {
  readonly #parts: MachinesComponents
  readonly #queue: WorkQueue
  readonly #tracked = new Map<string, Tracked>()
  readonly #processes = new ProcessBook()
  readonly #placements: HostPlacements
  readonly #reservations: Reservations = createReservations()
  #guardian: GuardianFollowing | undefined
  #hostDrains = false

  constructor(parts: MachinesComponents) {
    this.#parts = parts
    const { actor, host, store, lease } = parts
    const { clock, log } = actor
    this.#queue = createWorkQueue(
      { handle: uid => this.#handle(uid), backoff: { firstMs: 200, mostMs: 10_000 } },
      { clock, log },
    )
    this.#placements = createHostPlacements(
      {
        host,
        leaseRevision: () => lease.leaseRevision(),
        onChange: uid => this.#onPlacement(uid),
      },
      { store, clock, log },
    )
  }

  async start(): Promise<void> {
    const { host, objects, guardian, lease, disk, actor } = this.#parts
    const { clock, log } = actor
    for (const record of disk.values()) this.#track(record, structuredClone(record))
    this.#guardian = await followGuardian(
      {
        processes: this.#processes,
        onExit: uid => this.#queue.add(uid),
        onListed: () => this.#onListed(),
      },
      { guardian, clock, log },
    )
    lease.onChange(() => this.#wake())
    this.#wake()
    followObjects(virtualMachineKind, { objects, clock, log }, ({ metadata: { uid } }) => {
      if (uid !== undefined && this.#tracked.has(uid)) this.#queue.add(uid)
    })
    followObjects(hostKind, { objects, clock, log }, ({ metadata, spec }) => {
      if (metadata.name !== host || (spec.drain ?? false) === this.#hostDrains) return
      this.#hostDrains = spec.drain ?? false
      this.#wake()
    })
  }

  #wake(): void {
    for (const uid of this.#tracked.keys()) this.#queue.add(uid)
  }

  #wakeHindered(): void {
    for (const { uid, obstacle } of this.#tracked.values()) if (obstacle) this.#queue.add(uid)
  }

  #onListed(): void {
    for (const { name, ended } of this.#processes.all()) {
      const request = this.#tracked.get(name)?.record?.request
      if (ended === undefined && request !== undefined) this.#reservations.adopt(name, request)
    }
    this.#wake()
  }

  #onPlacement(uid: string): void {
    const placement = this.#placements.of(uid)
    if (placement?.host === this.#parts.host && !this.#tracked.has(uid)) {
      if (standingOf(placement, undefined, placement.host) === 'elsewhere') return
      this.#track(placement, undefined)
    }
    if (this.#tracked.has(uid)) this.#queue.add(uid)
  }

  #track(
    machine: { uid: string; namespace: string; name: string },
    record: GuestRecord | undefined,
  ): void {
    this.#tracked.set(machine.uid, newTracked(machine, guestFolder(roots, machine.uid), record))
  }

  /** Writes guest.json; the disk of the host is as fast as that. */
  #save({ uid, record }: Tracked): void {
    if (record !== undefined) this.#parts.disk.set(uid, structuredClone(record))
  }

  #standing({ uid, record }: Tracked): Standing | 'elsewhere' {
    if (!this.#placements.isKnown()) return 'unknown'
    return standingOf(this.#placements.of(uid), record, this.#parts.host)
  }

  async #handle(uid: string): Promise<Again> {
    const tracked = this.#tracked.get(uid)
    if (tracked === undefined || !this.#guardian?.isTrue()) return undefined
    this.#adopt(tracked)
    if (this.#standing(tracked) === 'elsewhere') return await this.#evict(tracked)
    const { namespace, name } = tracked
    const found = await this.#parts.objects.find(virtualMachineKind, { namespace, name })
    const machine = found?.metadata.uid === uid ? found : undefined
    if (machine === undefined) return await this.#withoutMachine(tracked)
    let step: Step = { kind: 'rest' }
    for (let count = 0; count < stepsInARow; count++) {
      this.#adopt(tracked)
      const standing = this.#standing(tracked)
      if (standing === 'elsewhere') return { againMs: 0 }
      step = this.#decide(tracked, machine, standing)
      const goOn = await this.#perform(step, tracked, machine)
      if (step.kind === 'destroy') {
        this.#tracked.delete(uid)
        this.#wakeHindered()
        return undefined
      }
      if (!goOn) break
    }
    const standing = this.#standing(tracked)
    if (standing === 'ours' || standing === 'resting')
      await tellStatus(tracked, step, this.#processes.get(uid) !== undefined, this.#parts)
    if (step.kind === 'wait') return { againMs: step.forMs }
    return tracked.obstacle === undefined ? undefined : { againMs: obstacleRetryMs }
  }

  #decide(tracked: Tracked, machine: VirtualMachine, standing: Standing): Step {
    const { actor, lease } = this.#parts
    return decide(
      situationOf(machine, tracked, {
        process: this.#processes.get(tracked.uid),
        nowMs: actor.clock.wallMs(),
        monotonicMs: actor.clock.monotonicMs(),
        diskHasRoom: true,
        standing,
        placement: this.#placements.of(tracked.uid),
        leaseRevision: lease.leaseRevision(),
        hostDrains: this.#hostDrains,
      }),
    )
  }

  #adopt(tracked: Tracked): void {
    const process = this.#processes.get(tracked.uid)
    const runs = process !== undefined && process.ended === undefined
    if (!runs || tracked.runtime !== undefined) return
    const request = tracked.record?.request
    if (request !== undefined) this.#reservations.adopt(tracked.uid, request)
    tracked.obstacle = undefined
    tracked.runtime = runtime
  }

  /** As evictGuest (agent/machine/remove.ts). */
  async #evict(tracked: Tracked): Promise<Again> {
    const { uid } = tracked
    const process = this.#processes.get(uid)
    tracked.stopping?.abort()
    if (process !== undefined && process.ended === undefined) {
      await this.#kill(uid)
      return undefined
    }
    tracked.runtime = undefined
    if (process !== undefined) await this.#forgetProcess(uid)
    this.#remove(uid)
    this.#parts.actor.log.info({ uid }, 'removed a guest that belongs here no more')
    this.#tracked.delete(uid)
    this.#wakeHindered()
    this.#onPlacement(uid)
    return undefined
  }

  async #withoutMachine(tracked: Tracked): Promise<Again> {
    const { uid, record } = tracked
    if (record === undefined && this.#processes.get(uid) === undefined) {
      this.#tracked.delete(uid)
      await this.#placements.remove(uid)
      return undefined
    }
    const era = record?.era
    if (era !== undefined && era === (await readEra(this.#parts.store))) {
      return await this.#evict(tracked)
    }
    this.#parts.actor.log.error({ uid }, 'this host has a guest whose machine is not in the store')
    return undefined
  }

  #remove(uid: string): void {
    this.#parts.disk.delete(uid)
    this.#reservations.release(uid)
  }

  async #forgetProcess(uid: string): Promise<void> {
    try {
      await this.#parts.guardian.forget(uid)
    } catch (error) {
      if (!isFailure(error, 'guardianProcessNotFound')) throw error
    }
    this.#processes.delete(uid)
  }

  async #kill(uid: string): Promise<void> {
    const process = this.#processes.get(uid)
    if (process === undefined || process.ended !== undefined) return
    if (process.identity === undefined) throw failure('guardianProcessNotFound', { name: uid })
    await this.#parts.guardian.signal(uid, 'SIGKILL', process.identity)
  }

  async #perform(step: Step, tracked: Tracked, machine: VirtualMachine): Promise<boolean> {
    try {
      return await this.#performStep(step, tracked, machine)
    } catch (error) {
      const codes = [
        'guardianUnavailable',
        'guardianNameTaken',
        'guardianProcessNotFound',
        'guardianStaleIdentity',
      ] as const
      if (codes.some(code => isFailure(error, code))) this.#guardian?.doubt()
      if (step.kind !== 'start') throw error
      if (!isFailure(error, 'placementChanged')) await this.#hinder(tracked, error)
      return false
    }
  }

  async #hinder(tracked: Tracked, error: unknown): Promise<void> {
    const { uid } = tracked
    const message = messageOf(error)
    tracked.obstacle = { reason: 'Hindered', message }
    this.#parts.actor.log.warn({ uid, message }, 'a machine could not be started')
    this.#reservations.release(uid)
    const placement = this.#placements.of(uid)
    if (placement?.state !== 'Assigned' || isAnchored(placement)) return
    if (isFailure(error, 'hostFull') || isFailure(error, 'unavailable')) {
      await this.#placements.refuse(uid, { reason: 'HostFull', message })
    }
  }

  async #performStep(step: Step, tracked: Tracked, machine: VirtualMachine): Promise<boolean> {
    const { uid, record } = tracked
    const { actor, host } = this.#parts
    switch (step.kind) {
      case 'rest':
        tracked.obstacle = undefined
        await this.#giveRoomBack(uid)
        return false
      case 'wait':
        tracked.obstacle = undefined
        return false
      case 'start':
        await this.#startGuest(tracked, machine)
        return false
      case 'askForRoom':
        await this.#placements.wake(uid, requestOf(machine))
        return false
      case 'surrender':
        await this.#placements.surrender(uid, { reason: 'Drained', message: `${host} is drained` })
        return false
      case 'claimAnew':
        await this.#claimAnew(uid, machine)
        return true
      case 'acknowledge': {
        const actedStart = machine.metadata.annotations?.[startedAtAnnotation]
        if (record !== undefined) tracked.record = { ...record, ...(actedStart && { actedStart }) }
        this.#save(tracked)
        return true
      }
      case 'collect':
        await this.#collect(tracked)
        return true
      case 'shutDown': {
        if (record !== undefined) {
          const intent = step.intent === 'delete' ? step.intent : (record.intent ?? step.intent)
          tracked.record = { ...record, intent }
        }
        this.#save(tracked)
        tracked.stopping = new AbortController()
        tracked.stopByMs = actor.clock.monotonicMs() + 30_000
        this.#parts.shutDown(uid)
        return false
      }
      case 'quit':
        if (record !== undefined) tracked.record = { ...record, intent: step.intent }
        this.#save(tracked)
        await this.#kill(uid)
        return false
      case 'destroy':
        await this.#destroy(tracked)
        return false
      case 'pause':
      case 'resume':
        return false
    }
  }

  async #giveRoomBack(uid: string): Promise<void> {
    if (this.#processes.get(uid) !== undefined) return
    const released = this.#reservations.release(uid)
    const placement = this.#placements.of(uid)
    if (placement !== undefined && takesRoom(placement)) await this.#placements.rest(uid)
    if (released) this.#wakeHindered()
  }

  /** As startGuest (agent/machine/start.ts). */
  async #startGuest(tracked: Tracked, machine: VirtualMachine): Promise<void> {
    const { uid, namespace, name } = tracked
    const { actor, guardian, lease, allocatable, host } = this.#parts
    const request = requestOf(machine)
    const promised = this.#placements.of(uid)?.request
    if (promised !== undefined && !isDeepStrictEqual(promised, request)) {
      await this.#placements.wake(uid, request)
      return
    }
    const lacking = this.#reservations.reserve(uid, request, allocatable)
    if (lacking.length > 0) throw failure('hostFull', { host, shortages: lacking.join('; ') })
    const placement = await this.#placements.claim(uid, machine.spec.onHostLoss)
    const { diskEpoch, leaseRevision, onHostLoss } = placement
    const era = await readEra(this.#parts.store)
    const before = tracked.record ?? newRecord(uid, namespace, name)
    const { intent: _, guestEnding: __, notBeforeMs: ___, ...rest } = before
    const annotations = machine.metadata.annotations ?? {}
    tracked.record = {
      ...rest,
      ...(diskEpoch !== undefined && { diskEpoch }),
      ...(era !== undefined && { era }),
      runs: before.startBegun ? before.runs : before.runs + 1,
      startBegun: true,
      request,
      startedAtMs: actor.clock.wallMs(),
      bootTimings: { firmwareMs: 1 },
      actedStart: annotations[startedAtAnnotation],
      actedRestart: annotations[restartedAtAnnotation],
    }
    this.#save(tracked)
    // Making its disk and its network takes a while.
    await actor.pass(actor.world.chance.between(5, 150))
    const claim =
      leaseRevision === undefined ? undefined : lease.claim(leaseRevision, onHostLoss === 'Replace')
    const start = { name: uid, ...(claim && { claim }) }
    const identity = await guardian.start(start as Parameters<Guardian['start']>[0])
    if (this.#processes.get(uid)?.identity?.pid !== identity.pid) {
      this.#processes.set({ name: uid, identity, startedAt: timestamp(actor.clock) })
    }
    this.#queue.add(uid)
  }

  /** As claimAnew (agent/machine/steps.ts). */
  async #claimAnew(uid: string, { spec: { onHostLoss } }: VirtualMachine): Promise<void> {
    const { guardian, lease } = this.#parts
    const fenced = onHostLoss === 'Replace'
    const tellGuardian = async (revision: number | undefined, ahead: boolean): Promise<void> => {
      const claim = revision === undefined ? undefined : lease.claim(revision, fenced)
      if (claim !== undefined) await guardian.claim(uid, claim, ahead)
    }
    if (fenced) await tellGuardian(lease.leaseRevision(), true)
    const { leaseRevision } = await this.#placements.claim(uid, onHostLoss)
    await tellGuardian(leaseRevision, false)
  }

  /** As collectExit (agent/machine/collect.ts). */
  async #collect(tracked: Tracked): Promise<void> {
    const { uid, record } = tracked
    const process = this.#processes.get(uid)
    if (process?.ended === undefined) return
    if (record !== undefined && record.lastExit?.time !== process.ended.endedAt) {
      // A guest that powers itself off is seen by QMP, which is not simulated.
      const { code } = process.ended
      const runState = code === 0 && record.intent === undefined ? 'shutdown' : 'running'
      const lastExit = judge(record, process.ended, runState)
      tracked.record = afterExit(record, lastExit, this.#parts.actor.clock.wallMs())
      const { reason } = lastExit
      this.#parts.actor.log.info({ uid, reason }, 'guest ended')
    }
    this.#save(tracked)
    await this.#forgetProcess(uid)
    tracked.runtime = undefined
    tracked.stopping?.abort()
    tracked.stopping = undefined
  }

  async #destroy({ uid, namespace, name }: Tracked): Promise<void> {
    const { finalizer = '' } = virtualMachineKind
    this.#remove(uid)
    const reference = { namespace, name }
    await this.#parts.objects.releaseFinalizer(virtualMachineKind, reference, finalizer, uid)
    await this.#placements.remove(uid)
    this.#parts.actor.log.info({ uid }, 'machine deleted')
  }
}
