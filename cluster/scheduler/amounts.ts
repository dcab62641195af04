import type { Amounts } from '../../resources/host.ts'
import { approximateBytes, quantityValue } from '../../resources/quantity.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'

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
