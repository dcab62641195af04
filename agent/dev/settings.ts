import { totalmem } from 'node:os'

/** Of this machine's memory, never offered by any host. */
const reserveBytes = 1024 * 1024 * 1024

/**
 * Settings of each of so many hosts on this machine. Every host believes that it has this machine
 * to itself: each offers its share of the memory, and many times the cores, for guests that hardly
 * compute.
 */
export function devSettings(hosts: number): Record<string, unknown> {
  const total = totalmem()
  const share = Math.max(0, total - reserveBytes) / hosts
  const memoryReserve = `${Math.ceil((total - share) / 1024 / 1024)}Mi`
  return { memoryReserve, cpuOvercommit: 16 }
}
