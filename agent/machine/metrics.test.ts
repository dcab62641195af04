import { expect, test } from 'vitest'
import { createMetrics } from '../../base/metrics.ts'
import type { Phase } from '../../resources/virtual-machine.ts'
import { createMachineMetrics } from './metrics.ts'

test('machines are counted as they are at that moment, starts and ends as they were', async () => {
  const registry = createMetrics()
  let phases: Phase[] = ['Running', 'Running', 'Pending']
  const metrics = createMachineMetrics(registry, () => phases)
  metrics.started(false)
  metrics.started(true)
  metrics.ended('QemuDied')
  const told = await registry.metrics()
  expect(told).toContain('macfleet_machines{phase="Running"} 2')
  expect(told).toContain('macfleet_machine_starts_total{again="true"} 1')
  expect(told).toContain('macfleet_machine_ends_total{reason="QemuDied"} 1')
  phases = ['Stopped']
  const later = await registry.metrics()
  expect(later).toContain('macfleet_machines{phase="Stopped"} 1')
  expect(later).not.toContain('macfleet_machines{phase="Running"}')
})
