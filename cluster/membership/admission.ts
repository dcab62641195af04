import { createHash } from 'node:crypto'
import { isIPv4 } from 'node:net'
import { type Clock, timestamp } from '../../base/clock.ts'
import { failure, isFailure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import { fleetKey, hostTrustKey, memberKey, memberPrefix, peerNameKey } from '../fleet/keys.ts'
import type { FleetRecord, Member, MemberAddress } from '../fleet/member.ts'
import type { Compare, Entry, Operation, Store } from '../store/store.ts'
import { type AuthoritiesRecord, readAuthorities, signersIn, trustByHost } from './authorities.ts'
import { type AuthorityPair, issueCertificate } from './authority.ts'
import { checkMember, type MemberList, memberOf, memberPuts } from './members.ts'
import type { JoinRequest, ProvenRequest, RenewRequest } from './request.ts'
import { checkUsable, findToken, needsApproval, useOf } from './tokens.ts'

/** What an approved host is given. */
export interface Admitted {
  state: 'Approved'
  /** PEM, for the keys that were proven. */
  certificates: { etcd: string; hosts: string }
  /** The generation of the authorities that signed them. */
  generation: number
  authorities: AuthoritiesRecord
  fleet: FleetRecord
  /** The host's own record. */
  member: Member
  members: Member[]
  /** Names of hosts that can sign. */
  signers: string[]
  /** Where etcd's clients connect, `https://HOST:PORT`. */
  etcdEndpoints: string[]
}

/** The answer to a request to join. Who waits is told nothing of the fleet. */
export type JoinAnswer = Admitted | { state: 'Pending' }

/** What admission needs. */
export interface AdmissionComponents {
  store: Store
  /** The newest known members, for when the store does not answer. */
  members: MemberList
  clock: Clock
  random: Random
  log: Log
  limits: Pick<Limits, 'members'>
  /** The authorities' keys of a generation, where this host has them. */
  signing(generation: number): AuthorityPair | undefined
  /** What is known of the fleet, for when the store does not answer. */
  known(): { fleet: FleetRecord; authorities: AuthoritiesRecord }
  etcdEndpoints(): string[]
}

/** Decides who gets in, and signs. */
export interface Admission {
  /** Whether this host has the keys for it. */
  canSign(): boolean
  /**
   * Whether it is worth to ask another host: the request is by a host that is known already, or
   * its token is valid.
   * @throws tokenRefused, tokenExpired, tokenUsedUp
   */
  checkJoin(proven: ProvenRequest<JoinRequest>): Promise<void>
  /**
   * Lets a host in, or lets it wait. Asking again, after an answer that was lost, changes nothing.
   * @throws tokenRefused, tokenExpired, tokenUsedUp, hostNameTaken, hostKeyTaken, hostAddressTaken,
   *   tooMany, noSigner
   */
  join(proven: ProvenRequest<JoinRequest>): Promise<JoinAnswer>
  /** New certificates for a member. @throws notMember, noSigner */
  renew(proven: ProvenRequest<RenewRequest>): Promise<Admitted>
}

const mostAttempts = 10

/** Makes the admission of one host. */
export function createAdmission(components: AdmissionComponents): Admission {
  return {
    canSign: () => components.signing(components.known().authorities.signing) !== undefined,
    async checkJoin(proven) {
      const { fleet } = await readFleet(components.store)
      if (await isTakenUpAgain(components.store, fleet, proven)) return
      const { request } = proven
      const shown = { id: request.tokenId, secret: request.tokenSecret, era: fleet.era }
      checkUsable((await findToken(components.store, shown)).record, components.clock)
    },
    async join(proven) {
      for (let attempt = 0; attempt < mostAttempts; attempt++) {
        const answer = await joinOnce(proven, components)
        if (answer !== undefined) return answer
      }
      throw failure('conflict', { resource: 'host', name: proven.request.name })
    },
    renew: proven => renew(proven, components),
  }
}

async function readFleet(store: Store): Promise<{ fleet: FleetRecord; entry: Entry }> {
  const { entry } = await store.get(fleetKey)
  if (entry === undefined) {
    const advice = 'This host is about to join or to leave; try again'
    throw failure('unavailable', { what: 'the fleet', detail: 'it has no record', advice })
  }
  return { fleet: entry.value as unknown as FleetRecord, entry }
}

/**
 * A host's id: the same for the same join, another for the next, and by its peer id in it never
 * that of another host.
 */
export function hostIdOf(fleetId: string, peerId: string, joinId: string): string {
  const hex = createHash('sha256')
    .update(JSON.stringify([fleetId, peerId, joinId]))
    .digest('hex')
  // The form of a UUID of version 8 (RFC 9562, section 5.8).
  const [first, second, last] = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(20, 32)]
  return `${first}-${second}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${last}`
}

async function isTakenUpAgain(
  store: Store,
  fleet: FleetRecord,
  { peerId, request }: ProvenRequest<JoinRequest>,
): Promise<boolean> {
  const { entry } = await store.get(memberKey(request.name))
  const member = entry === undefined ? undefined : memberOf(entry)
  const hostId = hostIdOf(fleet.fleetId, peerId, request.joinId)
  return member?.peerId === peerId && member.hostId === hostId && hasJoinedSince(fleet, member)
}

/**
 * Whether a member has joined since the fleet was restored, if it was. The list in a backup may
 * have hosts that were removed later: they come in by a new token or not at all.
 */
function hasJoinedSince({ recoveringSince }: FleetRecord, { joinedAt }: Member): boolean {
  return recoveringSince === undefined || Date.parse(joinedAt) >= Date.parse(recoveringSince)
}

/** @returns undefined when something changed meanwhile: try again */
async function joinOnce(
  proven: ProvenRequest<JoinRequest>,
  components: AdmissionComponents,
): Promise<JoinAnswer | undefined> {
  const { store, clock, log } = components
  const { request, peerId } = proven
  const { fleet, entry: fleetEntry } = await readFleet(store)
  const { record: authorities, compare } = await readAuthorities(store)
  const hostId = hostIdOf(fleet.fleetId, peerId, request.joinId)
  const { entries } = await store.list(memberPrefix)
  const entry = entries.find(({ key }) => key === memberKey(request.name))
  const own = entry === undefined ? undefined : memberOf(entry)
  if (own?.peerId === peerId && own.hostId === hostId && hasJoinedSince(fleet, own)) {
    if (own.state === 'Pending') return { state: 'Pending' }
    return certify(own, proven, { fleet, authorities }, components)
  }
  const shown = { id: request.tokenId, secret: request.tokenSecret, era: fleet.era }
  const token = await findToken(store, shown)
  checkUsable(token.record, clock)
  const owner = await store.get(peerNameKey(peerId))
  checkPlace(proven, { own, others: entries.map(memberOf), owner: owner.entry }, components)
  const approved = own?.state === 'Approved' || !needsApproval(token.record, request.machineId)
  const member = newMember(proven, hostId, approved, token.record.rack, clock)
  if (approved) requireKeys(authorities, components)
  const used = useOf(token)
  const compares: Compare[] = [
    compare,
    used.compare,
    { key: fleetEntry.key, modRevision: fleetEntry.modRevision },
    { key: memberKey(member.name), modRevision: entry?.modRevision ?? 0 },
    { key: peerNameKey(peerId), modRevision: owner.entry?.modRevision ?? 0 },
  ]
  const operations: Operation[] = [used.operation, ...memberPuts(member)]
  operations.push({ delete: hostTrustKey(member.name) })
  const result = await store.transaction({ compare: compares, operations })
  if (!result.succeeded) return undefined
  log.info({ host: member.name, peerId, token: token.record.id, state: member.state }, 'host joins')
  if (!approved) return { state: 'Pending' }
  return certify(member, proven, { fleet, authorities }, components)
}

/** @throws hostNameTaken, hostKeyTaken, hostAddressTaken, tooMany */
function checkPlace(
  { request, peerId, address }: ProvenRequest<JoinRequest>,
  { own, others, owner }: { own?: Member; others: readonly Member[]; owner: Entry | undefined },
  { limits }: AdmissionComponents,
): void {
  const { name } = request
  if (own !== undefined && own.peerId !== peerId) throw failure('hostNameTaken', { name })
  if (own !== undefined && own.machineId !== request.machineId) {
    throw failure('hostKeyTaken', { name, detail: 'on another machine' })
  }
  if (owner !== undefined && owner.value !== name) {
    const detail = 'with the same peer key'
    throw failure('hostKeyTaken', { name: String(owner.value), detail })
  }
  checkAddress(name, address, others)
  if (own === undefined && others.length >= limits.members) {
    throw failure('tooMany', { limit: limits.members, what: 'hosts in one fleet' })
  }
}

/** @throws hostAddressTaken: a certificate for another host's address must not be had */
function checkAddress(name: string, address: MemberAddress, others: readonly Member[]): void {
  const ports = portsOf(address)
  const place = plainAddress(address.host)
  const holder = others.find(
    other =>
      other.name !== name &&
      plainAddress(other.address.host) === place &&
      portsOf(other.address).some(port => ports.includes(port)),
  )
  if (holder === undefined) return
  throw failure('hostAddressTaken', { name: holder.name, address: address.host })
}

/** One text for one address, which can be written in many ways, an IPv4 one in IPv6's too. */
function plainAddress(address: string): string {
  if (isIPv4(address)) return address
  const text = URL.parse(`http://[${address}]`)?.hostname ?? address
  const [, high, low] = /^\[::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})\]$/.exec(text) ?? []
  if (high === undefined || low === undefined) return text
  const [first, second] = [high, low].map(group => Number.parseInt(group, 16)) as [number, number]
  return [first >> 8, first & 0xff, second >> 8, second & 0xff].join('.')
}

function portsOf({ host: _, ...ports }: MemberAddress): number[] {
  return Object.values(ports)
}

function newMember(
  { request, peerId, address }: ProvenRequest<JoinRequest>,
  hostId: string,
  approved: boolean,
  tokenRack: string | undefined,
  clock: Clock,
): Member {
  const rack = request.rack ?? tokenRack
  return {
    name: request.name,
    hostId,
    machineId: request.machineId,
    peerId,
    address,
    ...(rack === undefined ? {} : { rack }),
    state: approved ? 'Approved' : 'Pending',
    joinedAt: timestamp(clock),
    version: request.version,
  }
}

/** @throws noSigner when this host lacks the keys */
function requireKeys(
  authorities: AuthoritiesRecord,
  { signing }: AdmissionComponents,
): AuthorityPair {
  const pair = signing(authorities.signing)
  if (pair === undefined) {
    throw failure('noSigner', { detail: 'this one has no keys of the authorities' })
  }
  return pair
}

async function certify(
  member: Member,
  { etcdKey, hostsKey }: Pick<ProvenRequest<JoinRequest>, 'etcdKey' | 'hostsKey'>,
  { fleet, authorities }: { fleet: FleetRecord; authorities: AuthoritiesRecord },
  components: AdmissionComponents,
): Promise<Admitted> {
  const pair = requireKeys(authorities, components)
  const { name, peerId, hostId } = member
  const identity = { fleetId: fleet.fleetId, name, peerId, hostId }
  const subject = { identity, address: member.address.host }
  const sign = (kind: 'etcd' | 'hosts', publicKey: typeof etcdKey) =>
    issueCertificate(kind, pair[kind], { ...subject, publicKey }, components)
  const { members, signers } = await describeFleet(pair.generation, components)
  return {
    state: 'Approved',
    certificates: { etcd: sign('etcd', etcdKey), hosts: sign('hosts', hostsKey) },
    generation: pair.generation,
    authorities,
    fleet,
    member,
    members,
    signers,
    etcdEndpoints: components.etcdEndpoints(),
  }
}

/** Without the store, as it was last known. */
async function describeFleet(
  generation: number,
  { store, members }: AdmissionComponents,
): Promise<{ members: Member[]; signers: string[] }> {
  try {
    const { entries } = await store.list(memberPrefix)
    return {
      members: entries.map(memberOf),
      signers: signersIn(await trustByHost(store), generation),
    }
  } catch (error) {
    if (!isFailure(error, 'unavailable')) throw error
    return { members: [...members.all()], signers: [] }
  }
}

async function renew(
  proven: ProvenRequest<RenewRequest>,
  components: AdmissionComponents,
): Promise<Admitted> {
  const { request, peerId, address } = proven
  const { store, members, known } = components
  const wanted = { name: request.name, peerId, hostId: request.hostId }
  try {
    const { fleet } = await readFleet(store)
    const { record: authorities } = await readAuthorities(store)
    const { entry } = await store.get(memberKey(request.name))
    const found = entry === undefined ? undefined : memberOf(entry)
    const member = checkRenewable(found, wanted, fleet)
    checkAddress(member.name, address, (await store.list(memberPrefix)).entries.map(memberOf))
    return await certify({ ...member, address }, proven, { fleet, authorities }, components)
  } catch (error) {
    // While nothing can be decided nobody can be removed, so what was known last still holds.
    if (!isFailure(error, 'unavailable')) throw error
    const member = checkRenewable(members.get(request.name), wanted, known().fleet)
    checkAddress(member.name, address, members.all())
    return certify({ ...member, address }, proven, known(), components)
  }
}

/** @throws notMember */
function checkRenewable(
  found: Member | undefined,
  wanted: Pick<Member, 'name' | 'peerId' | 'hostId'>,
  fleet: FleetRecord,
): Member {
  const member = checkMember(found, wanted)
  if (hasJoinedSince(fleet, member)) return member
  const detail = 'the fleet was restored since it joined'
  throw failure('notMember', { name: member.name, detail })
}
