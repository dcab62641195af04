import type { OwnFacts } from '../../cluster/gossip/facts-message.ts'

/** What a host says of itself in tests. */
export const plainFacts: OwnFacts = {
  version: '0.1.0',
  ready: true,
  allocatable: { cpu: 8, memoryBytes: 32e9, diskBytes: 500e9, machines: 64 },
  reserved: { cpu: 0, memoryBytes: 0, diskBytes: 0, machines: 0 },
  cpuFraction: 0.1,
  load1: 0.5,
  memoryUsedBytes: 4e9,
  diskFreeBytes: 400e9,
  imageDigests: [],
}
