import { readFileSync } from 'node:fs'
import { createTestFleet, type TestFleet } from '../cluster/fleet.ts'
import type { TestRack } from '../cluster/rack.ts'
import { until } from '../support/host.ts'
import { type Bench, type BenchContext, type Figure, figureOf } from './harness.ts'

const hosts = 3
const waitMs = 120_000

/** What the loss of a leader, of etcd's leader and of a host costs, on a rack of three hosts. */
export const bench: Bench = {
  timeoutMs: 60 * 60_000,
  async run(context) {
    const { quick, say, afterwards } = context
    say(`forming a fleet of ${hosts} hosts`)
    const fleet = await createTestFleet({ hosts }, rack => afterwards(() => rack.remove()))
    await fleet.untilVoters('mac-1', hosts)
    const rounds = quick ? 3 : 10
    const trial = createTrial(fleet, context)
    const leader = await trial.repeat('leader killed', rounds, trial.leaderKilled)
    const both = await trial.repeat('leader and etcd lost', rounds, trial.leaderLost)
    const host = await trial.repeat('host lost', rounds, () => trial.hostLost('other'))
    const voter = await trial.repeat("etcd's leader lost", rounds, () => trial.hostLost('etcd'))
    if ((await fleet.overlaps()).length > 0) throw new Error('a machine ran twice')
    return {
      leaderKilled: figure("the leader's daemon killed: next placement", leader, 3),
      leaderLost: figure("its host and etcd's leader die with it: next placement", both, 6),
      hostLost: figure("a host lost: its machine's QEMU starts elsewhere", host, 10),
      etcdLeaderLost: figure("the same, of the host with etcd's leader", voter, 15),
    }
  },
}

function figure(what: string, seconds: readonly number[], value: number): Figure {
  return figureOf(what, 's', seconds, { value, bound: 'atMost' })
}

/** Milliseconds since boot, which the watcher counts in. */
const bootMs = (): number => Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) * 1000

function createTrial(fleet: TestFleet, { say, signal }: BenchContext) {
  const { rack } = fleet
  let machines = 0
  const others = (host: string) => rack.hosts.map(({ name }) => name).filter(name => name !== host)
  const [any = ''] = others('')
  const heal = async (host: string, name: string): Promise<void> => {
    await fleet.remove(host, name)
    await Promise.all(rack.hosts.map(({ name: of }) => comeBack(rack, of)))
    await fleet.untilVoters(host, hosts)
  }
  /** Seconds until a machine that is made now, through a host, is given to one. */
  const untilPlaced = async (through: string, name: string, fromMs: number): Promise<number> => {
    const create = () =>
      fleet.create(through, name, { onHostLoss: 'Replace' }).then(
        () => true as const,
        () => undefined,
      )
    await until('the store takes it', create, waitMs)
    await rack.untilMachine(through, name, ({ status }) => status?.host !== undefined, waitMs)
    return (bootMs() - fromMs) / 1000
  }
  return {
    async repeat(what: string, rounds: number, trial: () => Promise<number>): Promise<number[]> {
      const results: number[] = []
      while (results.length < rounds) {
        signal.throwIfAborted()
        results.push(await trial())
        say(`${what}: ${results.at(-1)?.toFixed(1)} s`)
      }
      return results
    },
    async leaderKilled(): Promise<number> {
      const leader = await fleet.leader(any)
      const [through = ''] = others(leader)
      const name = `trial-${++machines}`
      const fromMs = bootMs()
      await rack.host(leader).kill('daemon')
      const tookS = await untilPlaced(through, name, fromMs)
      await heal(through, name)
      return tookS
    },
    async leaderLost(): Promise<number> {
      const leader = await fleet.leader(any)
      for (let at = await fleet.etcdLeader(any); at !== leader; at = await fleet.etcdLeader(any)) {
        await rack.host(at).kill('etcd')
        await fleet.untilVoters(any, hosts)
      }
      const [through = ''] = others(leader)
      const name = `trial-${++machines}`
      const fromMs = bootMs()
      await rack.host(leader).powerOff()
      const tookS = await untilPlaced(through, name, fromMs)
      await heal(through, name)
      return tookS
    },
    async hostLost(which: 'etcd' | 'other'): Promise<number> {
      const [leader, etcd] = [await fleet.leader(any), await fleet.etcdLeader(any)]
      const other = others(leader).find(name => name !== etcd) ?? ''
      const lost = which === 'etcd' ? etcd : other
      const [through = ''] = others(lost)
      const name = `trial-${++machines}`
      await fleet.place(through, lost, name, { onHostLoss: 'Replace' })
      await rack.untilMachine(through, name, ({ status }) => status?.phase === 'Running')
      const fromMs = bootMs()
      await rack.host(lost).powerOff()
      const isElsewhere = async () =>
        (await fleet.runs(name)).find(run => run.host !== lost && run.startedMs > fromMs)
      const next = await until(`${name} starts elsewhere`, isElsewhere, waitMs)
      await heal(through, name)
      return (next.startedMs - fromMs) / 1000
    },
  }
}

/** The host as it was, with its power and its daemon. */
async function comeBack(rack: TestRack, name: string): Promise<void> {
  const host = rack.host(name)
  if (host.processes().length === 0) await host.powerOn()
  else await host.start()
}
