import { type Clock, withTimeout } from '../../base/clock.ts'
import { fleetKey, hostLeasePrefix, leaderKey } from '../../cluster/fleet/keys.ts'
import type { FleetRecord, Member } from '../../cluster/fleet/member.ts'
import type { MirroredStore } from '../../cluster/store/mirrored.ts'
import type { FleetStatus, MemberStatus } from '../../interface/api/fleet-operations.ts'
import { ownVersion } from '../host-controller.ts'
import type { FleetFolder } from '../membership/fleet-folder.ts'
import type { EtcdParts } from './etcd-parts.ts'
import type { Network } from './network.ts'
import type { Transitions } from './transitions.ts'
import type { Voters } from './voters.ts'

/** The host that tells. */
export interface FleetStatusInit {
  fleet: FleetFolder
  etcd: EtcdParts
  voters: Voters
  network: Network
}

/** What telling needs. */
export interface FleetStatusComponents {
  store: MirroredStore
  clock: Clock
  transitions: Transitions
}

/** What one member of etcd may take to answer. */
const memberMs = 1_000
/** Twice what a host with nothing new to say waits. */
const heardMs = 10_000

/** How the fleet is, as far as this host knows; it answers also when there is no quorum. */
export async function fleetStatus(
  init: FleetStatusInit,
  components: FleetStatusComponents,
): Promise<FleetStatus> {
  const { fleet, network } = init
  const { store, transitions } = components
  const [record, leader, leases, voting] = await Promise.all([
    read(() => store.get(fleetKey).then(({ entry }) => entry?.value)),
    read(() => store.get(leaderKey).then(({ entry }) => entry?.value)),
    read(() => store.list(hostLeasePrefix).then(({ entries }) => entries)),
    votingOf(init, components.clock),
  ])
  const alive = new Set((leases ?? []).map(({ key }) => key.slice(hostLeasePrefix.length)))
  const members = network.membership()?.members.all() ?? fleet.known().members
  const { fleetId, era, recoveringSince } =
    (record as unknown as FleetRecord | undefined) ?? fleet.known().fleet
  const transition = transitions.current()
  const storeStatus = storeStatusOf(init, components)
  const { isAvailable } = storeStatus
  const given = { alive: isAvailable ? alive : undefined, voting, init, components }
  const shown = members.map(member => memberStatus(member, given))
  return {
    mode: 'fleet',
    host: fleet.identity.name,
    version: ownVersion(),
    fleetId,
    era,
    ...(isAvailable && leaderOf(leader)),
    members: shown.sort((one, other) => (one.name < other.name ? -1 : 1)),
    store: storeStatus,
    certificateExpiresAt: fleet.certificate('hosts').validToDate.toISOString(),
    ...(recoveringSince !== undefined && { recoveringSince }),
    ...(transition && { transition }),
    warnings: [...warningsOf(shown, isAvailable), ...troublesOf(init)],
  }
}

async function read<Result>(ask: () => Promise<Result>): Promise<Result | undefined> {
  return await ask().catch(() => undefined)
}

function leaderOf(value: unknown): { leader?: string } {
  const { host } = (value ?? {}) as { host?: string }
  return host === undefined ? {} : { leader: host }
}

type Voting = Map<string, NonNullable<MemberStatus['voter']>>

/** What each host's member of etcd says of itself. */
async function votingOf({ etcd, voters }: FleetStatusInit, clock: Clock): Promise<Voting> {
  const voting: Voting = new Map()
  const tooLate = () => new Error('no answer')
  await Promise.all(
    voters.list().map(async ({ id, name, clientUrls, isLearner }) => {
      const [endpoint] = clientUrls
      if (name === '') return
      voting.set(name, isLearner ? 'learner' : 'unreachable')
      if (endpoint === undefined || isLearner) return
      const asked = etcd.admin.status(endpoint)
      const status = await read(() => withTimeout(clock, memberMs, asked, tooLate))
      // One that answers and knows no leader is not what is missing.
      if (status !== undefined) voting.set(name, status.leaderId === id ? 'leader' : 'follower')
    }),
  )
  return voting
}

function storeStatusOf(
  { etcd }: FleetStatusInit,
  { store, clock }: FleetStatusComponents,
): FleetStatus['store'] {
  const stale = store.staleSince()
  const { available, lastError } = etcd.connection.availability()
  if (stale === undefined && available) return { kind: 'etcd', isAvailable: true }
  const sinceMs = stale?.sinceMs ?? etcd.connection.availability().sinceMs
  const agoMs = clock.monotonicMs() - sinceMs
  return {
    kind: 'etcd',
    isAvailable: false,
    unavailableSince: new Date(clock.wallMs() - agoMs).toISOString(),
    ...(lastError !== undefined && { error: lastError }),
  }
}

function memberStatus(
  { name, state, rack, address, version }: Member,
  given: {
    /** Undefined while that is not known. */
    alive: ReadonlySet<string> | undefined
    voting: Voting
    init: FleetStatusInit
    components: FleetStatusComponents
  },
): MemberStatus {
  const voter = given.voting.get(name)
  const facts = given.init.network.facts().of(name)
  const nowMs = given.components.clock.monotonicMs()
  const heardAgoMs = facts && Math.max(0, Math.round(nowMs - facts.receivedAtMs))
  return {
    name,
    state,
    ...(rack !== undefined && { rack }),
    address: address.host,
    version,
    isAlive: given.alive?.has(name) ?? (heardAgoMs !== undefined && heardAgoMs < heardMs),
    ...(voter !== undefined && { voter }),
    ...(heardAgoMs !== undefined && { heardAgoMs }),
  }
}

function warningsOf(members: readonly MemberStatus[], isAvailable: boolean): string[] {
  const voters = members.filter(({ voter }) => voter !== undefined && voter !== 'learner')
  const silent = voters.filter(({ voter }) => voter === 'unreachable').map(({ name }) => name)
  const pending = members.filter(({ state }) => state === 'Pending').map(({ name }) => name)
  const approved = members.filter(({ state }) => state === 'Approved')
  const [only] = voters
  return [
    ...(isAvailable ? [] : ['No quorum: reads show what was known, and nothing can be changed']),
    ...(voters.length === 1 && approved.length > 1 && only
      ? [`${only.name} alone holds the store: without it no decision is made`]
      : []),
    ...(silent.length > 0
      ? [`Of the hosts that hold the store ${silent.join(', ')} are silent`]
      : []),
    ...(pending.length > 0 ? [`${pending.join(', ')} wait for \`macfleet host approve\``] : []),
  ]
}

/** What is wrong with this host's own place in the fleet, or is about to change. */
function troublesOf({ fleet, network }: FleetStatusInit): string[] {
  const { authorities, fleet: record } = fleet.known()
  const problem = network.problem()
  const era = network.higherEra()
  return [
    ...(authorities.trusted.length > 1
      ? ['The certificate authorities are being replaced; every host has to follow']
      : []),
    ...(era !== undefined && era > record.era
      ? [
          `The fleet was restored from a backup: \`macfleet cluster join TOKEN\` takes this host along`,
        ]
      : []),
    ...(problem === undefined ? [] : [`This host is not among the others: ${problem}`]),
  ]
}
