import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import type { PeerMember } from '../../cluster/peers/allow-list.ts'
import type { Order, Report } from '../support/gossip-nodes.ts'
import { readProcessorSeconds, readPssMegabytes } from '../support/process-usage.ts'
import { type Bench, type BenchContext, type Figure, figureOf } from './harness.ts'

type Figures = Record<string, Figure>

/** Hosts of one fleet in several processes on loopback: few enough to be run on two cores. */
const fleets = [
  { hosts: 12, processes: 2 },
  { hosts: 30, processes: 3 },
]
const program = new URL('../support/gossip-nodes.ts', import.meta.url).pathname

/**
 * What gossip costs a host, how soon all know of a change and a newcomer of all, and the memory
 * that the network takes in a process of its own. Several hosts share a process and the processes
 * share the machine, so times are upper bounds.
 */
export const bench: Bench = {
  timeoutMs: 10 * 60_000,
  async run(context) {
    const alone = await measureMemory(context)
    const figures: Figures = { ...alone }
    for (const fleet of fleets) Object.assign(figures, await measureFleet(fleet, context))
    return figures
  },
}

interface Child {
  pid: number
  ask(order: Order): Promise<Report>
  stop(): Promise<void>
}

function startChild({ afterwards, signal }: BenchContext): Child {
  const child: ChildProcess = fork(program, { stdio: 'inherit' })
  const stop = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
  afterwards(stop)
  return {
    pid: child.pid ?? 0,
    stop,
    async ask(order) {
      child.send(order)
      const [report] = await once(child, 'message', { signal })
      return report as Report
    },
  }
}

async function measureMemory(context: BenchContext): Promise<Figures> {
  const child = startChild(context)
  const pss = async (): Promise<number> => {
    await delay(context.quick ? 2_000 : 10_000, undefined, { signal: context.signal })
    return readPssMegabytes(child.pid)
  }
  const before = await pss()
  await child.ask({ start: ['alone'] })
  const after = await pss()
  await child.stop()
  context.say(`memory before ${before.toFixed(0)} MB, with peers ${after.toFixed(0)} MB`)
  const what = 'PSS of a process that does nothing else, libp2p started, nobody connected'
  return {
    peersPss: figureOf(what, 'MB', [after]),
    peersPssAdded: figureOf('PSS that starting libp2p adds to it', 'MB', [after - before]),
  }
}

async function measureFleet(
  { hosts, processes }: { hosts: number; processes: number },
  context: BenchContext,
): Promise<Figures> {
  const { say, signal, quick } = context
  const children = Array.from({ length: processes }, () => startChild(context))
  // The newcomer, and what is measured in memory, have a process to themselves.
  const single = startChild(context)
  const askAll = (order: Order): Promise<Report[]> =>
    Promise.all([...children, single].map(child => child.ask(order)))
  const perProcess = hosts / processes
  const started = await Promise.all(
    children.map((child, at) => {
      const names = Array.from({ length: perProcess }, (_, n) => `host-${at * perProcess + n}`)
      return child.ask({ start: names })
    }),
  )
  const members: PeerMember[] = started.flatMap(report => report.started ?? [])
  const beganMs = Date.now()
  await askAll({ members })
  const known = await Promise.all(children.map(child => child.ask({ awaitKnown: hosts })))
  const allMs = Math.max(...known.map(({ atMs = 0 }) => atMs)) - beganMs
  say(`${hosts} hosts: all know all after ${allMs} ms`)
  // Newcomers speak every second for a while.
  await delay(quick ? 12_000 : 20_000, undefined, { signal })

  const usedBefore = children.map(child => readProcessorSeconds(child.pid))
  const spanMs = quick ? 10_000 : 30_000
  await delay(spanMs, undefined, { signal })
  const usedSeconds = children
    .map((child, at) => readProcessorSeconds(child.pid) - (usedBefore[at] ?? 0))
    .reduce((sum, seconds) => sum + seconds, 0)
  const percent = (usedSeconds / (spanMs / 1000) / hosts) * 100

  const lastMs: number[] = []
  const typicalMs: number[] = []
  for (let round = 1; round <= (quick ? 3 : 10); round++) {
    const load1 = 10 * round
    const waits = children.map(child => child.ask.bind(child, { awaitChange: 'host-0', load1 }))
    const changed = await Promise.all(children.map(child => child.ask({ change: 'host-0', load1 })))
    const reports = await Promise.all(waits.map(wait => wait()))
    const changedMs = changed[0]?.atMs ?? 0
    const each = reports.flatMap(({ eachMs = [] }) => eachMs).map(atMs => atMs - changedMs)
    lastMs.push(Math.max(...each))
    typicalMs.push(figureOf('', 'ms', each).value)
    await delay(1_000, undefined, { signal })
  }
  const joined = await measureNewcomer(single, members, askAll)
  const name = `hosts${hosts}`
  const pss = readPssMegabytes(single.pid)
  for (const child of [...children, single]) await child.stop()
  const of = `${hosts} hosts in ${processes} processes on loopback`
  return {
    [`${name}CpuPerHost`]: figureOf(`processor time of a host, ${of}`, '% of a core', [percent]),
    [`${name}ChangeKnown`]: figureOf('a change is known to half of them after', 'ms', typicalMs),
    [`${name}ChangeKnownToAll`]: figureOf('a change is known to all after', 'ms', lastMs),
    [`${name}AllKnowAll`]: figureOf('all start at once and know all after', 'ms', [allMs]),
    [`${name}NewcomerKnowsAll`]: figureOf('a newcomer knows all after', 'ms', [joined], {
      value: 2_000,
      bound: 'atMost',
    }),
    [`${name}Pss`]: figureOf('PSS of a process with one host of them', 'MB', [pss]),
  }
}

/** From its being a member to its knowing everybody. */
async function measureNewcomer(
  single: Child,
  members: readonly PeerMember[],
  askAll: (order: Order) => Promise<Report[]>,
): Promise<number> {
  const { started = [] } = await single.ask({ start: ['newcomer'] })
  const beganMs = Date.now()
  await askAll({ members: [...members, ...started] })
  const { atMs = Number.NaN } = await single.ask({ awaitKnown: members.length + 1 })
  return atMs - beganMs
}
