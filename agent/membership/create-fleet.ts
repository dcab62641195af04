import type { Clock } from '../../base/clock.ts'
import { timestamp } from '../../base/clock.ts'
import { assert, failure } from '../../base/errors.ts'
import type { JsonValue } from '../../base/json.ts'
import { type Random, randomUuid } from '../../base/random.ts'
import { authoritiesKey } from '../../cluster/fleet/keys.ts'
import type { FleetRecord, Member, MemberAddress } from '../../cluster/fleet/member.ts'
import { hostIdOf } from '../../cluster/membership/admission.ts'
import { firstAuthorities } from '../../cluster/membership/authorities.ts'
import {
  type AuthorityKind,
  createAuthorityPair,
  issueCertificate,
  newKeyPair,
  privateKeyText,
} from '../../cluster/membership/authority.ts'
import { memberPuts } from '../../cluster/membership/members.ts'
import type { Operation } from '../../cluster/store/store.ts'
import { type FleetFolder, openFleetFolder, pemFileOf } from './fleet-folder.ts'
import { beginMembership, commitMembership, foldersOf } from './folder-files.ts'
import { readMachineId } from './machine-id.ts'

/** What a host brings into a fleet. */
export interface OwnHost {
  dataDir: string
  /** Usually /etc/machine-id. */
  machineIdFile: string
  name: string
  address: MemberAddress
  rack?: string
  /** The version of macfleet. */
  version: string
}

/** How a fleet of one is made. */
export interface CreateFleetInit extends OwnHost {
  /** What etcd's revisions are raised by, see `FleetRecord`. */
  revisionBase: number
  /** 1, or higher when a backup is restored. */
  era?: number
  /** That of the backup which is restored; a new one else. */
  fleetId?: string
}

/** What making a fleet needs. */
export interface CreateFleetComponents {
  clock: Clock
  random: Random
}

/**
 * Makes a fleet of this host alone: its authorities, its identity, its certificates, and the folder
 * that holds them. The store is not touched: the caller writes `fleetRecords`.
 * @throws alreadyInFleet; adoptNeeded, fleetFolderDamaged when there is a folder that does not open
 */
export async function createFleet(
  init: CreateFleetInit,
  components: CreateFleetComponents,
): Promise<FleetFolder> {
  const { clock, random } = components
  const existing = await openFleetFolder(init)
  if (existing !== undefined) {
    const { fleetId, name } = existing.identity
    throw failure('alreadyInFleet', { fleetId, name })
  }
  const folders = foldersOf(init.dataDir)
  const machineId = await readMachineId(init.machineIdFile)
  const { peer, joinId } = await beginMembership(folders, random)
  const fleet: FleetRecord = {
    fleetId: init.fleetId ?? randomUuid(random),
    era: init.era ?? 1,
    revisionBase: init.revisionBase,
    createdAt: timestamp(clock),
  }
  const member: Member = {
    name: init.name,
    hostId: hostIdOf(fleet.fleetId, peer.peerId, joinId),
    machineId,
    peerId: peer.peerId,
    address: init.address,
    ...(init.rack === undefined ? {} : { rack: init.rack }),
    state: 'Approved',
    joinedAt: fleet.createdAt,
    version: init.version,
  }
  const pair = createAuthorityPair({ fleetId: fleet.fleetId, generation: 1 }, components)
  const authorities = firstAuthorities(pair, clock)
  const { name, peerId, hostId } = member
  const identity = { fleetId: fleet.fleetId, name, peerId, hostId }
  const made = (kind: AuthorityKind): string => {
    const { privateKey, publicKey } = newKeyPair()
    const subject = { identity, address: init.address.host, publicKey }
    const certificate = issueCertificate(kind, pair[kind], subject, components)
    return pemFileOf({ key: privateKeyText(privateKey), certificate }, kind, authorities)
  }
  const { host, etcdClientPort } = init.address
  const known = {
    fleet,
    authorities,
    member,
    members: [member],
    signers: [name],
    etcdEndpoints: [`https://${host.includes(':') ? `[${host}]` : host}:${etcdClientPort}`],
  }
  const file = { version: 1 as const, machineId, ...known }
  await commitMembership(folders, { file, etcd: made('etcd'), hosts: made('hosts'), pairs: [pair] })
  const folder = await openFleetFolder(init)
  assert(folder !== undefined, 'what was just made is there')
  return folder
}

/**
 * The fleet's own records of a fleet that was just made, for its store. The `FleetRecord` is not
 * among them: who moves the state into etcd writes it when all the rest is there.
 */
export function fleetRecords(folder: FleetFolder): Operation[] {
  const { member, authorities } = folder.known()
  return [
    ...memberPuts(member),
    { put: authoritiesKey, value: { ...authorities } as unknown as JsonValue },
  ]
}
