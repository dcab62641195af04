import type { Clock } from '../../base/clock.ts'
import { Counter, Gauge, type Registry } from '../../base/metrics.ts'
import type { HeldLease } from '../host-lease.ts'
import type { FleetFolder } from '../membership/fleet-folder.ts'
import type { EtcdParts } from './etcd-parts.ts'
import type { Voters } from './voters.ts'

/** What is counted. */
export interface FleetMetricsInit {
  fleet: FleetFolder
  etcd: EtcdParts
  voters: Voters
  lease: HeldLease
}

/** What counting needs. */
export interface FleetMetricsComponents {
  clock: Clock
  metrics: Registry
}

/** Counts how this host's place in the fleet is; values are read when somebody asks for them. */
export function countFleet(
  { fleet, etcd, voters, lease }: FleetMetricsInit,
  { clock, metrics }: FleetMetricsComponents,
): void {
  const registers = [metrics]
  const gauge = (name: string, help: string, read: () => number): void => {
    new Gauge({
      ...{ name, help, registers },
      collect() {
        this.set(read())
      },
    })
  }
  gauge('macfleet_store_available', 'Whether etcd answered this host the last time.', () =>
    Number(etcd.connection.availability().available),
  )
  gauge('macfleet_etcd_voters', 'Members of etcd that vote, as this host was told last.', () => {
    return voters.list().filter(({ isLearner }) => !isLearner).length
  })
  gauge('macfleet_etcd_learners', 'Members of etcd that do not vote yet.', () => {
    return voters.list().filter(({ isLearner }) => isLearner).length
  })
  gauge('macfleet_fleet_members', 'Hosts in the member list, as this host knows it.', () => {
    return fleet.known().members.filter(({ state }) => state === 'Approved').length
  })
  gauge('macfleet_fleet_era', 'Grows with each restore from a backup.', () => {
    return fleet.known().fleet.era
  })
  gauge('macfleet_fleet_recovering', 'Whether hosts have yet to report after a restore.', () =>
    Number(fleet.known().fleet.recoveringSince !== undefined),
  )
  gauge('macfleet_certificate_seconds_left', "Until this host's certificate ends.", () => {
    return (fleet.certificate('hosts').validToDate.getTime() - clock.wallMs()) / 1000
  })
  gauge('macfleet_host_lease_held', 'Whether this host has a lease, to claim machines by.', () =>
    Number(lease.leaseRevision() !== undefined),
  )
  const lives = new Counter({
    name: 'macfleet_host_lease_lives_total',
    help: 'Leases of this host that began, or were gone on with, since its daemon started.',
    registers,
  })
  let last = lease.leaseRevision()
  if (last !== undefined) lives.inc()
  lease.onChange(() => {
    const revision = lease.leaseRevision()
    if (revision !== undefined && revision !== last) lives.inc()
    last = revision ?? last
  })
}
