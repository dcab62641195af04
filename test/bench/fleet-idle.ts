import { formFleet } from '../../agent/dev/form.ts'
import type { DevHost } from '../../agent/dev/host.ts'
import type { ProcessRole } from '../../agent/dev/processes.ts'
import { sleep, systemClock } from '../../base/clock.ts'
import type { FleetStatus } from '../../interface/api/fleet-operations.ts'
import { createTestRack, type TestRack } from '../cluster/rack.ts'
import { until } from '../support/host.ts'
import { observe, type Usage } from '../support/process-usage.ts'
import { type Bench, type BenchContext, type Figure, figureOf } from './harness.ts'

const hosts = 3
const votersMs = 120_000
const roles: readonly ProcessRole[] = ['daemon', 'guardian', 'etcd']

/** What the processes of a host take in a fleet of three that has nothing to do. */
export const bench: Bench = {
  timeoutMs: 10 * 60_000,
  async run(context) {
    const { afterwards, say, quick } = context
    const rack = await createTestRack({ hosts, racks: 2 })
    afterwards(() => rack.remove())
    await rack.start()
    await formFleet(rack.hosts, { clock: systemClock })
    await untilVoters(rack)
    // Started anew: as a daemon is after an upgrade, not as the one that made the fleet.
    for (const host of rack.hosts) {
      await host.kill('daemon')
      await host.start()
    }
    await untilVoters(rack)
    const forMs = quick ? 6_000 : 60_000
    say(`watching ${hosts} idle hosts for ${forMs / 1000} s`)
    await sleep(systemClock, quick ? 2_000 : 20_000)
    const usages = await observeAll(rack.hosts, forMs, context)
    return Object.assign({}, ...roles.map(role => figuresOf(role, usages[role] ?? [])))
  },
}

async function untilVoters(rack: TestRack): Promise<void> {
  await until(
    'three hosts vote',
    async () => {
      await sleep(systemClock, 500)
      const { members } = await rack.read<FleetStatus>('mac-1', '/fleet')
      const votes = members.filter(({ voter }) => voter === 'leader' || voter === 'follower')
      return votes.length === hosts ? true : undefined
    },
    votersMs,
  )
}

async function observeAll(
  observed: readonly DevHost[],
  forMs: number,
  { signal }: BenchContext,
): Promise<Partial<Record<ProcessRole, Usage[]>>> {
  const usages: Partial<Record<ProcessRole, Usage[]>> = {}
  const watching = observed.flatMap(host =>
    host.processes().map(async ({ role, pid }) => {
      const usage = await observe(pid, forMs, signal)
      usages[role] = [...(usages[role] ?? []), usage]
    }),
  )
  await Promise.all(watching)
  return usages
}

/** Of the hosts: the largest memory that was seen, and the median of their processor time. */
function figuresOf(role: ProcessRole, usages: readonly Usage[]): Record<string, Figure> {
  const readings = usages.flatMap(({ pssMegabytes }) => pssMegabytes)
  const target = role === 'daemon' ? ({ value: 200, bound: 'atMost' } as const) : undefined
  const memory = figureOf(
    `${role} in an idle fleet of ${hosts}: largest PSS`,
    'MB',
    readings,
    target,
  )
  const percent = usages.map(({ processorPercent }) => processorPercent)
  return {
    [`${role}Pss`]: { ...memory, value: Math.max(...readings) },
    [`${role}Cpu`]: figureOf(`${role}: CPU, median of the hosts`, '% of a core', percent),
  }
}
