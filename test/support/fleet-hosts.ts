import { randomBytes, randomInt } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import {
  type CreateFleetComponents,
  createFleet,
  fleetRecords,
  type OwnHost,
} from '../../agent/membership/create-fleet.ts'
import type { FleetFolder } from '../../agent/membership/fleet-folder.ts'
import { type JoinFleetInit, joinFleet } from '../../agent/membership/join-fleet.ts'
import {
  type Membership,
  startMembership,
  type TlsChange,
} from '../../agent/membership/membership.ts'
import type { PeerRoutes } from '../../agent/membership/server.ts'
import { type Clock, systemClock } from '../../base/clock.ts'
import { defaultLimits, type Limits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { fleetKey } from '../../cluster/fleet/keys.ts'
import { createMemoryStore } from '../../cluster/store/memory.ts'
import type { Store } from '../../cluster/store/store.ts'
import { temporaryFolder } from './temporary-folder.ts'

/** A machine that may become a host: an address on loopback, a machine id and a data folder. */
export interface Machine extends OwnHost {
  clock: Clock
}

let machines = 0

/** Makes one; nobody else has its address, so that tests can run side by side. */
export function makeMachine(changes: Partial<Machine> = {}): Machine {
  const folder = temporaryFolder()
  const machineIdFile = join(folder, 'machine-id')
  writeFileSync(machineIdFile, `${randomBytes(16).toString('hex')}\n`)
  const host = `127.${randomInt(1, 255)}.${randomInt(256)}.${randomInt(1, 255)}`
  machines++
  return {
    dataDir: join(folder, 'data'),
    machineIdFile,
    name: `host-${machines}`,
    address: {
      host,
      peerPort: 7480,
      gossipPort: 7481,
      etcdClientPort: 7482,
      etcdPeerPort: 7483,
      transferPort: 7484,
    },
    version: '0.1.0',
    clock: systemClock,
    ...changes,
  }
}

/** The clock of a machine that is wrong by so much. */
export function skewedClock(byMs: number): Clock {
  return { ...systemClock, wallMs: () => systemClock.wallMs() + byMs }
}

/** A host of a fleet whose daemon's membership runs in this process. */
export interface FleetHost {
  machine: Machine
  folder: FleetFolder
  membership: Membership
  tlsChanges: TlsChange[]
  wasRemoved(): boolean
  stop(): Promise<void>
}

/** A fleet in this process over one memory store. */
export interface TestFleet {
  store: Store
  /** Names of hosts that are to have a voter. */
  voters: Set<string>
  limits: Limits
  routes: PeerRoutes[]
  /** Starts the membership of a host whose folder is there. */
  start(machine: Machine, folder: FleetFolder): Promise<FleetHost>
  /** Makes the first host. */
  begin(machine?: Machine): Promise<FleetHost>
  join(token: string, changes?: Partial<Machine & JoinFleetInit>): Promise<FleetHost>
}

const base = { random: systemRandom, log: silentLog }

/** What every part takes, with a machine's clock. */
export function componentsOf(clock: Clock): CreateFleetComponents & typeof base {
  return { ...base, clock }
}

/** A fleet without hosts. */
export function makeFleet(limits: Limits = defaultLimits): TestFleet {
  const store = createMemoryStore({ ...componentsOf(systemClock), limits })
  onTestFinished(() => store.close())
  const fleet: TestFleet = {
    store,
    voters: new Set(),
    limits,
    routes: [],
    async start(machine, folder) {
      let removed = false
      const tlsChanges: TlsChange[] = []
      const { address, version, rack } = machine
      const membership = await startMembership(
        { address, version, routes: fleet.routes, ...(rack === undefined ? {} : { rack }) },
        {
          ...componentsOf(machine.clock),
          folder,
          store,
          limits,
          isVoter: async name => fleet.voters.has(name),
          etcdEndpoints: () => [`https://${address.host}:${address.etcdClientPort}`],
          onTls: async change => {
            tlsChanges.push(change)
          },
          onRemoved: () => {
            removed = true
          },
        },
      )
      let stopping: Promise<void> | undefined
      const stop = () => {
        stopping ??= membership.stop()
        return stopping
      }
      onTestFinished(stop)
      return { machine, folder, membership, tlsChanges, wasRemoved: () => removed, stop }
    },
    async begin(machine = makeMachine()) {
      const folder = await createFleet({ ...machine, revisionBase: 0 }, componentsOf(machine.clock))
      const value = { ...folder.known().fleet }
      const operations = [...fleetRecords(folder), { put: fleetKey, value }]
      await store.transaction({ compare: [], operations })
      fleet.voters.add(machine.name)
      return fleet.start(machine, folder)
    },
    async join(token, changes = {}) {
      const machine = { ...makeMachine(), ...changes }
      const components = { ...componentsOf(machine.clock), limits }
      const init = { patienceMs: 5_000, ...machine, token }
      const folder = await joinFleet(init, components, AbortSignal.timeout(15_000))
      return fleet.start(machine, folder)
    },
  }
  return fleet
}

/** A token of a host's fleet for a number of hosts that are let in at once, one after the other. */
export async function tokenOf(host: FleetHost): Promise<string> {
  return (await host.membership.createToken({ ttlMs: 600_000, uses: 1 })).text
}
