import type { Amounts } from '../resources/host.ts'
import { approximateBytes, quantityValue } from '../resources/quantity.ts'
import type { VirtualMachine } from '../resources/virtual-machine.ts'
import type { Config } from './config.ts'
import type { Sample } from './monitor.ts'

/** What the machine has. */
export function capacityOf(sample: Sample, machinesMost: number): Amounts {
  return {
    cpu: sample.cores,
    memoryBytes: sample.memoryTotalBytes,
    diskBytes: sample.diskTotalBytes,
    machines: machinesMost,
  }
}

/** What guests may have of it, by the daemon's settings. */
export function allocatableOf(
  capacity: Amounts,
  config: Pick<Config, 'cpuOvercommit' | 'memoryReserve' | 'diskReserve'>,
): Amounts {
  return {
    cpu: capacity.cpu * config.cpuOvercommit,
    memoryBytes: Math.max(0, capacity.memoryBytes - quantityValue(config.memoryReserve)),
    diskBytes: Math.max(0, capacity.diskBytes - quantityValue(config.diskReserve)),
    machines: capacity.machines,
  }
}

/** What a running machine is promised. Disks are thin and are watched as they fill, not promised. */
export function requestOf(machine: VirtualMachine): Amounts {
  return {
    cpu: quantityValue(machine.spec.cpu),
    memoryBytes: quantityValue(machine.spec.memory),
    diskBytes: 0,
    machines: 1,
  }
}

/** The sum of what has been promised. */
export function sumOf(amounts: Iterable<Amounts>): Amounts {
  const total = { cpu: 0, memoryBytes: 0, diskBytes: 0, machines: 0 }
  for (const amount of amounts) {
    total.cpu += amount.cpu
    total.memoryBytes += amount.memoryBytes
    total.diskBytes += amount.diskBytes
    total.machines += amount.machines
  }
  return total
}

/** Why a request does not fit beside what is promised already; empty when it does. */
export function shortages(request: Amounts, reserved: Amounts, allocatable: Amounts): string[] {
  const lacking: string[] = []
  const freeCpu = Math.max(0, allocatable.cpu - reserved.cpu)
  if (request.cpu > freeCpu) {
    lacking.push(`wants ${request.cpu} cores, ${Number(freeCpu.toFixed(2))} are free`)
  }
  const freeBytes = allocatable.memoryBytes - reserved.memoryBytes
  if (request.memoryBytes > freeBytes) {
    const wanted = approximateBytes(request.memoryBytes)
    lacking.push(`wants ${wanted} of memory, ${approximateBytes(Math.max(0, freeBytes))} are free`)
  }
  if (reserved.machines + request.machines > allocatable.machines) {
    lacking.push(`the host takes ${allocatable.machines} machines and has them`)
  }
  return lacking
}

/** A machine that waits for room. */
export interface Waiting {
  /** Higher is placed first. */
  priority: number
  /** Monotonic time. */
  sinceMs: number
  request: Amounts
}

/** Who is placed first: the higher priority, then who has waited longer. */
export function placedFirst(one: Waiting, other: Waiting): number {
  return other.priority - one.priority || one.sinceMs - other.sinceMs
}

/**
 * What has to stay free for machines of a higher priority that wait for room, so that small ones
 * don't take it from a big one for ever. One that would not fit into the empty host keeps nothing.
 */
export function keptFor(
  priority: number,
  waiting: readonly Waiting[],
  allocatable: Amounts,
): Amounts {
  const none = sumOf([])
  const ahead = waiting.filter(
    other => other.priority > priority && shortages(other.request, none, allocatable).length === 0,
  )
  return sumOf(ahead.map(({ request }) => request))
}

/** What this host has promised to whom; kept in step by the machine controller, which owns it. */
export interface Reservations {
  /**
   * Promises the request, or says why it can't. Promising again replaces the earlier promise.
   * @param kept what has to stay free beside it
   */
  reserve(uid: string, request: Amounts, allocatable: Amounts, kept?: Amounts): string[]
  /** Counts a machine that runs already, whether it fits or not. */
  adopt(uid: string, request: Amounts): void
  /** @returns whether it was promised something */
  release(uid: string): boolean
  total(): Amounts
}

/** An empty book of promises. */
export function createReservations(): Reservations {
  const promised = new Map<string, Amounts>()
  return {
    reserve(uid, request, allocatable, kept) {
      const others = [...promised].filter(([other]) => other !== uid).map(([, amounts]) => amounts)
      if (kept !== undefined) others.push(kept)
      const lacking = shortages(request, sumOf(others), allocatable)
      if (lacking.length === 0) promised.set(uid, request)
      return lacking
    },
    adopt: (uid, request) => promised.set(uid, request),
    release: uid => promised.delete(uid),
    total: () => sumOf(promised.values()),
  }
}
