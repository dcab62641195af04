import { join } from 'node:path'
import { openBootClock } from '../../base/boot-clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Registry } from '../../base/metrics.ts'
import { defaultPlanTiming } from '../../cluster/etcd/plan.ts'
import { startEtcdPlanner } from '../../cluster/etcd/planner.ts'
import { startSnapshots } from '../../cluster/etcd/snapshots.ts'
import type { FactsView, HostFacts } from '../../cluster/fleet/facts.ts'
import { defaultTiming } from '../../cluster/fleet/timing.ts'
import type { OwnFacts } from '../../cluster/gossip/facts-message.ts'
import { openEtcdStore } from '../../cluster/store/etcd.ts'
import { createMirroredStore } from '../../cluster/store/mirrored.ts'
import type { Config } from '../config.ts'
import { readBootId } from '../guardian/registry.ts'
import { keepGuardian } from '../guardian-keeper.ts'
import { ownVersion } from '../host-controller.ts'
import { startHostLease } from '../host-lease.ts'
import type { Recovery } from '../machine/recovery.ts'
import type { FleetFolder } from '../membership/fleet-folder.ts'
import type { Undo } from '../undo.ts'
import { ownAddress } from './address.ts'
import { createEtcdParts } from './etcd-parts.ts'
import { countFleet } from './fleet-metrics.ts'
import { fleetOperations } from './fleet-operations.ts'
import type { Ground } from './ground.ts'
import { leaveFleet } from './leave-fleet.ts'
import { joinNetwork, type Network } from './network.ts'
import { plannerHosts } from './planner-hosts.ts'
import type { SingleGroundComponents } from './single-ground.ts'
import { followVoters } from './voters.ts'

/** What a host of a fleet stands on. */
export interface FleetGroundComponents extends SingleGroundComponents {
  metrics: Registry
}

/** The prefix of our keys in etcd. */
const keyPrefix = 'm/'
const snapshotMs = 3_600_000
const snapshotsKept = 24
/** log2 of scrypt's N for snapshots, whose passphrase lies beside them. */
const snapshotCost = 10
const supervisorMs = 5_000
const planMs = 5_000
const statusMs = 2_000
const shunMs = 600_000
const votersMost = 3

/**
 * Opens the ground of a host that is in a fleet. Nothing in here waits for another host: a rack
 * that powers on has nobody to wait for.
 */
export async function openFleetGround(
  config: Config,
  fleet: FleetFolder,
  components: FleetGroundComponents,
  undo: Undo,
): Promise<Ground> {
  const { clock, log } = components
  const address = ownAddress(config)
  const guardian = await keepGuardian(config, components)
  undo.add(() => guardian.close())
  const parts = { ...components, guardian }
  const etcd = await createEtcdParts({ config, fleet, address }, parts)
  undo.add(() => etcd.connection.close())
  const { revisionBase } = fleet.known().fleet
  const freshStore = openEtcdStore(
    { connection: etcd.connection, revisionBase, prefix: keyPrefix },
    components,
  )
  const store = createMirroredStore(freshStore, components)
  undo.add(() => store.close())
  const voters = followVoters({ fleet, etcd, intervalMs: supervisorMs }, parts)
  undo.add(() => voters.stop())
  const identity = { host: fleet.identity.name, hostId: fleet.identity.hostId }
  const lease = startHostLease(
    {
      ...identity,
      bootId: readBootId(),
      dataFolder: config.dataDir,
      timing: defaultTiming,
      endpoints: voters.endpoints,
      tls: {
        authorityPath: fleet.paths.etcdAuthorities,
        certificatePath: fleet.paths.etcd,
        keyPath: fleet.paths.etcd,
      },
      etcdKey: key => `${keyPrefix}${key}`,
    },
    { ...parts, store: freshStore, bootClock: openBootClock() },
  )
  undo.add(() => lease.stop())
  undo.add(voters.onChange(() => lease.refresh()))
  countFleet({ fleet, etcd, voters, lease }, components)
  const snapshots = startSnapshots(
    {
      folder: join(config.dataDir, 'snapshots'),
      version: ownVersion(),
      intervalMs: snapshotMs,
      keptMost: snapshotsKept,
      scryptCost: snapshotCost,
      isVoter: () => voters.isVoter(fleet.identity.name) ?? false,
    },
    { ...components, store: freshStore },
  )
  undo.add(() => snapshots.stop())
  const network = joinNetwork(
    { config, fleet, address, etcd, voters, lease },
    { ...components, store: freshStore },
  )
  undo.add(() => network.stop())
  network.onRemoved(() => leaveRemoved({ config, fleet }, components))
  if (identity.host !== config.hostName) {
    const told = { hostName: config.hostName, name: identity.host }
    log.warn(told, 'this host keeps the name with which it joined its fleet')
  }
  return {
    host: identity.host,
    store,
    freshStore,
    staleSince() {
      const stale = store.staleSince()
      const agoMs = clock.monotonicMs() - (stale?.sinceMs ?? 0)
      return stale && new Date(clock.wallMs() - agoMs).toISOString()
    },
    guardian: lease.guardian,
    lease,
    timing: defaultTiming,
    recovery: () => recoveryOf(fleet),
    fenced: true,
    address: address.host,
    operations: fleetOperations(
      { config, fleet, etcd, voters, network, guardian },
      { ...components, store, freshStore },
    ),
    transfers: network.transfers,
    facts: lateFacts(network),
    tellFacts: (measure: () => OwnFacts) => network.tellFacts(measure),
    async lead(signal) {
      const hosts = await plannerHosts({ store: freshStore, clock, log }, signal)
      const planner = startEtcdPlanner(
        {
          votersMost,
          timing: defaultPlanTiming,
          intervalMs: planMs,
          shunMs,
          statusTimeoutMs: statusMs,
          hosts: hosts.list,
        },
        { admin: etcd.admin, clock, log },
      )
      await new Promise<void>(resolve => {
        if (signal.aborted) resolve()
        signal.addEventListener('abort', () => resolve(), { once: true })
      })
      await Promise.all([planner.stop(), hosts.stop()]).catch(error =>
        log.warn({ error: messageOf(error) }, 'the planner of etcd did not stop cleanly'),
      )
    },
    // Nothing here is mended by a restart.
    checkHealth: async () => {},
  }
}

function recoveryOf(fleet: FleetFolder): Recovery | undefined {
  const { era, revisionBase, recoveringSince } = fleet.known().fleet
  return recoveringSince === undefined ? undefined : { era, beganAfter: revisionBase }
}

/** The others have put this host out: what runs here is its no more. */
function leaveRemoved(
  host: { config: Config; fleet: FleetFolder },
  components: FleetGroundComponents,
): void {
  try {
    components.transitions.begin(leaveFleet({ ...host, how: 'removed' }, components))
  } catch (error) {
    components.log.warn({ error: messageOf(error) }, 'another change is under way')
  }
}

/** Gossip begins when the host's certificates are valid, which may be later than anything else. */
function lateFacts(network: Network): FactsView {
  return {
    of: (host: string): HostFacts | undefined => network.facts().of(host),
    all: () => network.facts().all(),
    onChange: listener => network.onFacts(listener),
  }
}
