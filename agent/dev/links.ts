import type { CommandRunner } from '../../base/command.ts'
import { failure } from '../../base/errors.ts'
import { createTurns } from '../../base/turns.ts'
import { hostLink, type Place } from './network.ts'
import { hostAddress, type NetworkPlan, namespaceName, rackSubnet, routerPart } from './plan.ts'

/** Which packets of a host are lost: those that it sends, those that are for it, or both. */
export type CutDirection = 'both' | 'sent' | 'received'

/** Faults of the links between hosts. What is cut is lost in silence, as in a broken switch. */
export interface Links {
  /** Cuts a host off from everybody, also from outside. */
  cut(host: string, direction?: CutDirection): Promise<void>
  /** Cuts what a host or a rack sends to another one; the way back too unless `oneWay`. */
  cutBetween(from: string, to: string, oneWay?: boolean): Promise<void>
  /** Lets at most so much through to a host, and as much from it. */
  slow(host: string, megabitsPerSecond: number): Promise<void>
  /** Ends every fault that names one of these hosts or racks; all faults when none is named. */
  heal(...places: string[]): Promise<void>
}

interface Cut {
  places: readonly string[]
  bridge: readonly string[]
  routed: readonly string[]
}

const timeoutMs = 10_000

/**
 * The faults of one network. They are rules of its router, where all bridges are: a host can't see
 * them, and its own firewall is left alone.
 */
export function createLinks(
  plan: NetworkPlan,
  places: ReadonlyMap<string, Place>,
  { run }: { run: CommandRunner },
): Links {
  const cuts = new Map<string, Cut>()
  const slowed = new Set<string>()
  const turns = createTurns()
  const router = namespaceName(plan, routerPart)
  const apply = () =>
    turns.take(() =>
      run('ip', ['netns', 'exec', router, 'nft', '-f', '-'], {
        timeoutMs,
        input: rulesOf([...cuts.values()]),
      }),
    )
  const hostOf = (name: string): Place => {
    const place = places.get(name)
    if (place === undefined) throw failure('devFailed', { detail: `there is no host ${name}` })
    return place
  }
  /** What a host or a rack is to the router: addresses, and the rack that they are in. */
  const endOf = (name: string) => {
    const rack = Number(/^rack-(\d+)$/.exec(name)?.[1] ?? 0)
    if (rack > 0) return { name, rack, addresses: rackSubnet(plan, rack) }
    const host = hostOf(name)
    return { name, rack: host.rack, addresses: hostAddress(plan, host.rack, host.number) }
  }
  const shape = async (host: string, words: readonly string[], codes: number[]): Promise<void> => {
    const ends = [
      [router, host],
      [namespaceName(plan, host), hostLink],
    ] as const
    for (const [namespace, device] of ends) {
      const args = ['-n', namespace, 'qdisc', words[0] ?? '', 'dev', device, 'root']
      await run('tc', [...args, ...words.slice(1)], { timeoutMs, acceptedCodes: codes })
    }
  }
  return {
    async cut(host, direction = 'both') {
      const { name } = hostOf(host)
      const sent = `prerouting iifname "${name}" drop`
      const received = `postrouting oifname "${name}" drop`
      const bridge = { both: [sent, received], sent: [sent], received: [received] }[direction]
      cuts.set(`${host} ${direction}`, { places: [host], bridge, routed: [] })
      await apply()
    },
    async cutBetween(from, to, oneWay = false) {
      const [here, there] = [endOf(from), endOf(to)]
      const ways = oneWay
        ? [[here, there]]
        : [
            [here, there],
            [there, here],
          ]
      const cut = { places: [from, to], bridge: [] as string[], routed: [] as string[] }
      for (const [one, other] of ways) {
        if (one === undefined || other === undefined) continue
        if (one.rack === other.rack) {
          cut.bridge.push(`forward iifname "${one.name}" oifname "${other.name}" drop`)
        } else cut.routed.push(`forward ip saddr ${one.addresses} ip daddr ${other.addresses} drop`)
      }
      cuts.set(`${from} ${to} ${oneWay}`, cut)
      await apply()
    },
    async slow(host, megabitsPerSecond) {
      const rate = `${Math.round(megabitsPerSecond * 1000)}kbit`
      // tbf(8): the bucket must hold what passes in a tick of the kernel.
      const burst = String(Math.max(16_384, Math.round(megabitsPerSecond * 1000)))
      slowed.add(hostOf(host).name)
      await shape(host, ['replace', 'tbf', 'rate', rate, 'burst', burst, 'latency', '100ms'], [0])
    },
    async heal(...names) {
      const isMeant = (place: string) => names.length === 0 || names.includes(place)
      for (const [key, cut] of cuts) if (cut.places.some(isMeant)) cuts.delete(key)
      await apply()
      for (const host of [...slowed].filter(isMeant)) {
        slowed.delete(host)
        // A host that was powered off meanwhile has lost its shaping with its link.
        await shape(host, ['del'], [0, 1, 2, 255])
      }
    },
  }
}

/** All cuts as one transaction of nft(8): a table of ours for bridges, one for routing. */
function rulesOf(cuts: readonly Cut[]): string {
  const chain = (name: string, hook: string, rules: readonly string[]) => {
    const own = rules.filter(rule => rule.startsWith(`${hook} `))
    const lines = own.map(rule => `    ${rule.slice(hook.length + 1)}`)
    return [`  chain ${name} {`, `    type filter hook ${hook} priority 0;`, ...lines, '  }']
  }
  const bridge = cuts.flatMap(cut => cut.bridge)
  const routed = cuts.flatMap(cut => cut.routed)
  return [
    'table bridge cuts {}',
    'delete table bridge cuts',
    'table bridge cuts {',
    ...chain('sent', 'prerouting', bridge),
    ...chain('received', 'postrouting', bridge),
    ...chain('between', 'forward', bridge),
    '}',
    'table ip cuts {}',
    'delete table ip cuts',
    'table ip cuts {',
    ...chain('between', 'forward', routed),
    '}',
    '',
  ].join('\n')
}
