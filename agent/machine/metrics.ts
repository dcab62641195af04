import { Counter, Gauge, type Registry } from '../../base/metrics.ts'
import type { ExitReason, Phase } from '../../resources/virtual-machine.ts'

/** What is counted of the machines of this host. */
export interface MachineMetrics {
  /** QEMU was started. */
  started(again: boolean): void
  /** QEMU has ended. */
  ended(reason: ExitReason): void
}

/** Counts, and looks at the machines whenever somebody asks. */
export function createMachineMetrics(
  registry: Registry,
  phases: () => Iterable<Phase>,
): MachineMetrics {
  const registers = [registry]
  const starts = new Counter({
    name: 'macfleet_machine_starts_total',
    help: 'Starts of QEMU; those after the first of a machine are again=true.',
    labelNames: ['again'],
    registers,
  })
  const ends = new Counter({
    name: 'macfleet_machine_ends_total',
    help: 'Ends of QEMU, by what ended the guest.',
    labelNames: ['reason'],
    registers,
  })
  new Gauge({
    name: 'macfleet_machines',
    help: 'Virtual machines of this host, by phase.',
    labelNames: ['phase'],
    registers,
    collect() {
      this.reset()
      for (const phase of phases()) this.inc({ phase })
    },
  })
  return {
    started: again => starts.inc({ again: String(again) }),
    ended: reason => ends.inc({ reason }),
  }
}
