import { shortages, sumOf } from '../cluster/scheduler/amounts.ts'
import type { Amounts } from '../resources/host.ts'
import { quantityValue } from '../resources/quantity.ts'
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

/** What this host has promised to whom; kept in step by the machine controller, which owns it. */
export interface Reservations {
  /**
   * Promises the request, or says why it can't. Promising again replaces the earlier promise.
   */
  reserve(uid: string, request: Amounts, allocatable: Amounts): string[]
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
