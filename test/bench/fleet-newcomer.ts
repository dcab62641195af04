import { createToken } from '../../agent/dev/form.ts'
import type { Host } from '../../resources/host.ts'
import { createTestFleet } from '../cluster/fleet.ts'
import { until } from '../support/host.ts'
import { type Bench, figureOf } from './harness.ts'

const hosts = 6
const waitMs = 120_000

/** How soon a host in the far rack, started with nothing but a token, takes machines. */
export const bench: Bench = {
  timeoutMs: 30 * 60_000,
  async run({ quick, say, signal, afterwards }) {
    say(`forming a fleet of ${hosts} hosts in two racks`)
    const init = { hosts, racks: 2 }
    const fleet = await createTestFleet(init, rack => afterwards(() => rack.remove()))
    await fleet.untilVoters('mac-1', 3)
    const { rack } = fleet
    const ready: number[] = []
    const placed: number[] = []
    for (let round = 1; round <= (quick ? 1 : 5); round++) {
      signal.throwIfAborted()
      const name = `mac-${hosts + round}`
      // It waits for the newcomer from before that host is switched on.
      await fleet.create('mac-1', `machine-${round}`, { on: name, onHostLoss: 'Replace' })
      const host = await rack.addHost(2, { labels: { 'test-name': name } })
      host.leaveToken(await createToken(rack.host('mac-1'), [host]))
      const beganMs = performance.now()
      const starting = host.start()
      await until(`${name} is Ready`, () => isReady(rack.read('mac-1', pathOf(name))), waitMs)
      ready.push((performance.now() - beganMs) / 1000)
      await until(
        `a machine is given to ${name}`,
        async () => {
          const { items } = await rack.read<Events>('mac-1', events)
          const isThis = (text: string) => text.includes(`given to the host ${name}`)
          return items.some(({ message }) => isThis(message ?? '')) || undefined
        },
        waitMs,
      )
      placed.push((performance.now() - beganMs) / 1000)
      say(`${name}: Ready ${ready.at(-1)?.toFixed(1)} s, placed ${placed.at(-1)?.toFixed(1)} s`)
      await starting
    }
    const target = { value: 10, bound: 'atMost' } as const
    return {
      newcomerReady: figureOf('a new host of the far rack is Ready', 's', ready, target),
      newcomerPlaced: figureOf('a machine was placed on it', 's', placed, target),
    }
  },
}

interface Events {
  items: { message?: string }[]
}

const events = '/api/v1/namespaces/default/events'
const pathOf = (name: string): string => `/apis/macfleet.dev/v1/hosts/${name}`

async function isReady(reading: Promise<Host>): Promise<true | undefined> {
  const host = await reading.catch(() => undefined)
  const ready = host?.status?.conditions?.find(({ type }) => type === 'Ready')
  return ready?.status === 'True' || undefined
}
