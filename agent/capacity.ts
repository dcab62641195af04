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
  const freeCpu = allocatable.cpu - reserved.cpu
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

/** What this host has promised to whom; kept in step by the machine controller, which owns it. */
export interface Reservations {
  /** Promises the request, or says why it can't. Promising again replaces the earlier promise. */
  reserve(uid: string, request: Amounts, allocatable: Amounts): string[]
  /** Counts a machine that runs already, whether it fits or not. */
  adopt(uid: string, request: Amounts): void
  release(uid: string): void
  total(): Amounts
}

/** An empty book of promises. */
export function createReservations(): Reservations {
  const promised = new Map<string, Amounts>()
  return {
    reserve(uid, request, allocatable) {
      const others = [...promised].filter(([other]) => other !== uid).map(([, amounts]) => amounts)
      const lacking = shortages(request, sumOf(others), allocatable)
      if (lacking.length === 0) promised.set(uid, request)
      return lacking
    },
    adopt: (uid, request) => promised.set(uid, request),
    release: uid => promised.delete(uid),
    total: () => sumOf(promised.values()),
  }
}
