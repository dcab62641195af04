import { join } from 'node:path'
import { formFleet } from '../../agent/dev/form.ts'
import { checkout } from '../../agent/dev/local-host.ts'
import { sleep, systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import type { FleetStatus, MemberStatus } from '../../interface/api/fleet-operations.ts'
import { type ApiClient, createApiClient } from '../../interface/cli/api-client.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import { until } from '../support/host.ts'
import { type GuestRun, type GuestWatcher, overlaps } from './guest-watcher.ts'
import { createTestRack, type TestRack, type TestRackInit } from './rack.ts'

/** A fleet of a test's own on a rack, with the micro guest as image `micro`. */
export interface TestFleet {
  rack: TestRack
  watcher: GuestWatcher
  /** Of all machines in the namespace that tests use. */
  machinesPath: string
  /** Speaks to the API of a host. */
  client(host: string): ApiClient
  /** Gives the image to a host that has joined. */
  importMicro(host: string): Promise<void>
  /** Creates a machine, through a host; it may be pinned to one. */
  create(through: string, name: string, spec?: MachineWish): Promise<void>
  /** Creates a machine that is put on one host first, and may go elsewhere later. */
  place(through: string, host: string, name: string, spec?: MachineWish): Promise<void>
  machine(through: string, name: string): Promise<VirtualMachine>
  /** Deletes a machine at once and waits until it is gone. */
  remove(through: string, name: string): Promise<void>
  status(through: string): Promise<FleetStatus>
  /** The host that leads, as a host knows it; waits until there is one that `isWanted`. */
  leader(through: string, isWanted?: (name: string) => boolean): Promise<string>
  /** The host that holds etcd's leader. */
  etcdLeader(through: string): Promise<string>
  /** Waits until so many hosts vote in etcd and answer. */
  untilVoters(through: string, count: number): Promise<MemberStatus[]>
  /** Lives of a machine's guest, as the kernel had them. */
  runs(name: string): Promise<GuestRun[]>
  /** Guests that ran twice at the same time, or of which the watcher can't tell. */
  overlaps(): Promise<[GuestRun, GuestRun][]>
}

/** What a machine of a test may be besides small. */
export interface MachineWish {
  onHostLoss?: 'Wait' | 'Replace'
  restartPolicy?: 'Never' | 'OnFailure' | 'Always'
  /** The only host that it may be on. */
  on?: string
  terminationGracePeriodSeconds?: number
}

const machines = '/apis/macfleet.dev/v1/namespaces/default/virtualmachines'
const micro = join(checkout, '.macfleet/guests/micro.raw')
/** The label by which a machine is pinned to a host. */
const nameLabel = 'test-name'
const votersMs = 90_000

/** Makes a fleet in which each of the hosts has the image. Whoever calls has to remove its rack. */
export async function createTestFleet(
  init: TestRackInit,
  onRack: (rack: TestRack) => void,
): Promise<TestFleet> {
  const rack = await createTestRack(init)
  onRack(rack)
  await rack.start()
  await formFleet(rack.hosts, { clock: systemClock })
  const fleet = fleetOn(rack, await rack.watch())
  for (const { name } of rack.hosts) {
    await fleet.importMicro(name)
    await fleet.client(name).request('PATCH', `/apis/macfleet.dev/v1/hosts/${name}`, {
      body: { metadata: { labels: { [nameLabel]: name } } },
      contentType: mergePatch,
    })
  }
  return fleet
}

const mergePatch = 'application/merge-patch+json'

function fleetOn(rack: TestRack, watcher: GuestWatcher): TestFleet {
  const clients = new Map<string, ApiClient>()
  const never = new AbortController().signal
  const client = (host: string): ApiClient => {
    const { socket } = rack.host(host)
    const made =
      clients.get(host) ??
      createApiClient({ socket, limits: defaultLimits }, { clock: systemClock, signal: never })
    clients.set(host, made)
    return made
  }
  const status = (through: string) => rack.read<FleetStatus>(through, '/fleet')
  const machine = (through: string, name: string) =>
    rack.read<VirtualMachine>(through, `${machines}/${name}`)
  const create = async (through: string, name: string, { on, ...wish }: MachineWish) => {
    const spec = { image: 'micro', cpu: '100m', memory: '128Mi', ...wish }
    const hostSelector = on === undefined ? {} : { hostSelector: { [nameLabel]: on } }
    const type = { apiVersion: 'macfleet.dev/v1', kind: 'VirtualMachine' }
    const body = { ...type, metadata: { name }, spec: { ...spec, ...hostSelector } }
    await client(through).request('POST', machines, { body })
  }
  const open = async (through: string, hosts: readonly string[], schedulable: boolean) => {
    for (const host of hosts) {
      const options = { body: { spec: { schedulable } }, contentType: mergePatch }
      await client(through).request('PATCH', `/apis/macfleet.dev/v1/hosts/${host}`, options)
    }
  }
  return {
    rack,
    watcher,
    machinesPath: machines,
    client,
    async importMicro(host) {
      await rack.must(host, 'image', 'import', micro, '--name', 'micro')
    },
    create: (through, name, wish = {}) => create(through, name, wish),
    async place(through, host, name, wish = {}) {
      const others = rack.hosts.map(other => other.name).filter(other => other !== host)
      await open(through, others, false)
      await create(through, name, wish)
      await rack.untilMachine(through, name, ({ status }) => status?.host === host)
      await open(through, others, true)
    },
    machine,
    async remove(through, name) {
      const body = { apiVersion: 'v1', kind: 'DeleteOptions', gracePeriodSeconds: 0 }
      await client(through).request('DELETE', `${machines}/${name}`, { body })
      await until(
        `${name} is gone`,
        async () => {
          const answer = machine(through, name)
          return await answer.then(
            () => undefined,
            error => (String(error).includes(': 404') ? true : undefined),
          )
        },
        60_000,
      )
    },
    status,
    leader: (through, isWanted = () => true) =>
      until(
        'somebody leads',
        async () => {
          const { leader } = await status(through)
          return leader !== undefined && isWanted(leader) ? leader : undefined
        },
        60_000,
      ),
    etcdLeader: through =>
      until('etcd has a leader', async () => {
        const { members } = await status(through)
        return members.find(({ voter }) => voter === 'leader')?.name
      }),
    untilVoters: (through, count) =>
      until(
        `${count} hosts vote`,
        async () => {
          await sleep(systemClock, 200)
          const { members } = await status(through)
          const voting = members.filter(({ voter }) => voter === 'leader' || voter === 'follower')
          const others = members.filter(({ voter }) => voter !== undefined).length
          return voting.length === count && others === count ? voting : undefined
        },
        votersMs,
      ),
    async runs(name) {
      const { runs } = await watcher.timeline()
      return runs.filter(run => run.name === `default/${name}`)
    },
    async overlaps() {
      return overlaps((await watcher.timeline()).runs)
    },
  }
}
