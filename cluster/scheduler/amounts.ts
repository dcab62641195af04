import type { Amounts } from '../../resources/host.ts'
import { approximateBytes, quantityValue } from '../../resources/quantity.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import type { Obstacle } from './obstacle.ts'

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

/** Cores are added and taken away in whole billionths, the finest quantity, so that sums are exact. */
export function nanocores(cores: number): number {
  return Math.round(cores * 1e9)
}

/** Why a request does not fit beside what is promised already; empty when it does. */
export function shortages(request: Amounts, reserved: Amounts, allocatable: Amounts): string[] {
  return lacking(request, reserved, allocatable).map(({ text }) => text)
}

/** The same, as obstacles that can be told of many hosts together. */
export function lacking(request: Amounts, reserved: Amounts, allocatable: Amounts): Obstacle[] {
  const found: Obstacle[] = []
  const freeNanocores = nanocores(allocatable.cpu) - nanocores(reserved.cpu)
  if (nanocores(request.cpu) > freeNanocores) {
    const say = (atMost: string) => (free: number) =>
      `wants ${request.cpu} cores, ${atMost}${Number(free.toFixed(2))} are free`
    found.push(shortage('cpu', freeNanocores / 1e9, say))
  }
  const freeBytes = allocatable.memoryBytes - reserved.memoryBytes
  if (request.memoryBytes > freeBytes) {
    const wanted = approximateBytes(request.memoryBytes)
    const say = (atMost: string) => (free: number) =>
      `wants ${wanted} of memory, ${atMost}${approximateBytes(free)} are free`
    found.push(shortage('memory', freeBytes, say))
  }
  if (reserved.machines + request.machines > allocatable.machines) {
    const text = `the host takes ${allocatable.machines} machines and has them`
    found.push({ kind: 'machines', text, common: () => 'the host has all the machines it takes' })
  }
  return found
}

function shortage(
  kind: string,
  free: number,
  say: (atMost: string) => (free: number) => string,
): Obstacle {
  const least = Math.max(0, free)
  return { kind, free: least, text: say('')(least), common: say('at most ') }
}
