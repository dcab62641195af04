import type { IndexedState } from '../../cluster/scheduler/fleet-state.ts'
import type { HostView, Planner, Wanted } from '../../cluster/scheduler/types.ts'

const GiB = 2 ** 30

/** A host of 8 cores and 16 GiB that takes anything. */
export function testHost(given: Partial<HostView> = {}): HostView {
  return {
    name: 'mac-1',
    labels: {},
    taints: [],
    schedulable: true,
    ready: true,
    allocatable: { cpu: 8, memoryBytes: 16 * GiB, diskBytes: 0, machines: 16 },
    arch: 'x86_64',
    macosGuestsMost: 2,
    mayHoldImage: () => false,
    ...given,
  }
}

/** A machine that wants a place; it takes a GiB of memory for each core. */
export function testWanted({ cpu = 1, ...given }: Partial<Wanted> & { cpu?: number } = {}): Wanted {
  const uid = given.uid ?? given.name ?? 'web'
  return {
    uid,
    namespace: 'default',
    name: uid,
    priority: 0,
    sinceMs: 0,
    request: { cpu, memoryBytes: cpu * GiB, diskBytes: 0, machines: 1 },
    machine: 'linux',
    arch: 'x86_64',
    group: 'default/micro',
    ...given,
  }
}

/** Takes every decision and counts it in the state, as the leader does. */
export function obedientPlanner(state: IndexedState): Planner {
  return {
    place({ machine, host }) {
      const { uid, request, machine: kind, group } = machine
      state.occupy({ uid, host, request, machine: kind, group })
      state.unwant(uid)
      return true
    },
  }
}
