import { X509Certificate } from 'node:crypto'
import { type BackoffInit, backoffMs } from '../../base/backoff.ts'
import { type Clock, sleep } from '../../base/clock.ts'
import { assert, type ErrorCode, failure, isFailure, MacfleetError } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import { type Random, randomInteger } from '../../base/random.ts'
import type { Admitted } from '../../cluster/membership/admission.ts'
import { fingerprintOf, newKeyPair, privateKeyText } from '../../cluster/membership/authority.ts'
import { identityOf, isIssuedBy } from '../../cluster/membership/identity.ts'
import { type JoinRequest, signRequest } from '../../cluster/membership/request.ts'
import {
  addressText,
  decodeToken,
  type JoinToken,
  type PeerAddress,
} from '../../cluster/membership/token-text.ts'
import { isPending, readAdmitted } from './admitted.ts'
import { checkClocks } from './clocks.ts'
import type { OwnHost } from './create-fleet.ts'
import { type FleetFolder, openFleetFolder, pemFileOf } from './fleet-folder.ts'
import {
  beginMembership,
  foldersOf,
  type Joining,
  replaceMembership,
  writeMembership,
} from './folder-files.ts'
import { readMachineId } from './machine-id.ts'
import { askPeer, greet } from './peer-client.ts'

/** A host that was found by mDNS. */
export interface DiscoveredHost {
  address: string
  peerPort: number
}

/** How a host joins. */
export interface JoinFleetInit extends OwnHost {
  /** What `macfleet cluster token create` printed. */
  token: string
  /** Joins although there is a membership: one from which this host was removed. */
  rejoin?: boolean
  /** Looks at a host that has the token's authority, before it is asked; throws what is wrong. */
  accept?: (hello: { fleetId: string; era: number }) => void
  /** Hosts of any fleet in the rack; those of another one are passed over. */
  discover?: (signal: AbortSignal) => AsyncIterable<DiscoveredHost>
  /** For how long hosts that do not answer are tried, in milliseconds. */
  patienceMs?: number
  /** Called when the fleet has answered that an operator has to approve first. */
  onWaiting?: () => void
}

/** What joining needs. */
export interface JoinFleetComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Pick<Limits, 'memberAnswerBytes' | 'discoveredHosts'>
}

const backoff: BackoffInit = { firstMs: 500, mostMs: 5_000 }
const defaultPatienceMs = 60_000
const approvalPollMs = 2_000
/** So often is it taken for chance that only hosts of another fleet answer. */
const mostForeignRounds = 4

/** What another host, or another try, would not answer differently. */
const final: readonly ErrorCode[] = [
  'badRequest',
  'clockSkew',
  'hostAddressTaken',
  'hostKeyTaken',
  'hostNameTaken',
  'inFleetAlready',
  'joinRefused',
  'tokenExpired',
  'tokenRefused',
  'tokenUsedUp',
]

/**
 * Joins the fleet that made the token: finds a host of it, proves this host's keys, waits for
 * approval where that is wanted, and keeps what it is given. It can be killed at any point and
 * called again with the same token, which is not used up by that.
 * @throws tokenMalformed, tokenOfOtherFleet, alreadyInFleet, fleetUnreachable after `patienceMs`,
 *   clockSkew, what the fleet refuses it with, or the signal's reason
 */
export async function joinFleet(
  init: JoinFleetInit,
  components: JoinFleetComponents,
  signal: AbortSignal,
): Promise<FleetFolder> {
  const existing = init.rejoin ? undefined : await openFleetFolder(init)
  if (existing !== undefined) {
    const { fleetId, name } = existing.identity
    throw failure('alreadyInFleet', { fleetId, name })
  }
  await askToJoin(init, components, signal)
  await replaceMembership(foldersOf(init.dataDir))
  const folder = await openFleetFolder(init)
  assert(folder !== undefined, 'what was just made is there')
  const { fleetId, name } = folder.identity
  components.log.info({ fleetId, host: name }, 'this host joined the fleet')
  return folder
}

/**
 * As `joinFleet`, but leaves the membership that there is in its place: until `replaceMembership`,
 * which is to be called when nothing uses the old one any more.
 * @throws as `joinFleet`, but for alreadyInFleet
 */
export async function askToJoin(
  init: JoinFleetInit,
  components: JoinFleetComponents,
  signal: AbortSignal,
): Promise<void> {
  const token = decodeToken(init.token)
  const folders = foldersOf(init.dataDir)
  const machineId = await readMachineId(init.machineIdFile)
  const joining = await beginMembership(folders, components.random)
  const asking: Asking = {
    init,
    token,
    machineId,
    joining,
    keys: { etcd: newKeyPair(), hosts: newKeyPair() },
  }
  const admitted = await findAndAsk(asking, components, signal)
  const { authorities } = admitted
  const pem = (kind: 'etcd' | 'hosts') => {
    const key = privateKeyText(asking.keys[kind].privateKey)
    return pemFileOf({ key, certificate: admitted.certificates[kind] }, kind, authorities)
  }
  const { fleet, member, members, signers, etcdEndpoints } = admitted
  const known = { fleet, authorities, member, members, signers, etcdEndpoints }
  const file = { version: 1 as const, machineId, ...known }
  await writeMembership(folders, { file, etcd: pem('etcd'), hosts: pem('hosts'), pairs: [] })
}

interface Asking {
  init: JoinFleetInit
  token: JoinToken
  machineId: string
  joining: Joining
  keys: Record<'etcd' | 'hosts', ReturnType<typeof newKeyPair>>
}

/** Goes round all addresses that are known until one answers for good. */
async function findAndAsk(
  asking: Asking,
  components: JoinFleetComponents,
  signal: AbortSignal,
): Promise<Admitted> {
  const { clock, random } = components
  const { init, token } = asking
  const places = new Map(token.addresses.map(each => [addressText(each), each]))
  const looking = followDiscovery(init, places, components, signal)
  const patienceMs = init.patienceMs ?? defaultPatienceMs
  let untilMs = clock.monotonicMs() + patienceMs
  let waiting = false
  let failures = 0
  try {
    for (;;) {
      const result = await askRound(asking, places, components, signal)
      if (result === 'Pending') {
        if (!waiting) init.onWaiting?.()
        waiting = true
        failures = 0
        untilMs = clock.monotonicMs() + patienceMs
        await sleep(clock, approvalPollMs + randomInteger(random, 500), signal)
        continue
      }
      if (!(result instanceof Error)) return result
      failures++
      const foreign = isFailure(result, 'tokenOfOtherFleet') && failures >= mostForeignRounds
      if (!waiting && (foreign || clock.monotonicMs() > untilMs)) throw result
      const waitMs = backoffMs(backoff, failures)
      await sleep(clock, waitMs + randomInteger(random, waitMs), signal)
    }
  } finally {
    looking.stop()
  }
}

/** @returns what was granted, or why nobody granted it */
async function askRound(
  asking: Asking,
  places: ReadonlyMap<string, PeerAddress>,
  components: JoinFleetComponents,
  signal: AbortSignal,
): Promise<Admitted | 'Pending' | Error> {
  let last: Error | undefined
  for (const address of [...places.values()]) {
    try {
      return await askOne(address, asking, components, signal)
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof MacfleetError) || final.includes(error.code)) throw error
      components.log.debug({ address: addressText(address), error: messageOf(error) }, 'no way in')
      // What a host of the right fleet says is worth more than that others do not answer.
      if (last === undefined || isSilence(last)) last = error
    }
  }
  return last ?? failure('fleetUnreachable', { detail: 'none was found in this rack' })
}

function isSilence(error: Error): boolean {
  return error instanceof MacfleetError && error.code === 'fleetUnreachable'
}

/** Adds what is found by mDNS behind the token's addresses. */
function followDiscovery(
  { discover }: JoinFleetInit,
  places: Map<string, PeerAddress>,
  { limits, log }: JoinFleetComponents,
  signal: AbortSignal,
): { stop(): void } {
  const stopping = new AbortController()
  const run = async (): Promise<void> => {
    if (discover === undefined) return
    const both = AbortSignal.any([signal, stopping.signal])
    for await (const { address, peerPort } of discover(both)) {
      if (places.size >= limits.discoveredHosts) return
      const found = { host: address, peerPort }
      places.set(addressText(found), found)
    }
  }
  run().catch(error => log.debug({ error: messageOf(error) }, 'looking for hosts ended'))
  return { stop: () => stopping.abort() }
}

async function askOne(
  address: PeerAddress,
  asking: Asking,
  components: JoinFleetComponents,
  signal: AbortSignal,
): Promise<Admitted | 'Pending'> {
  const { clock, limits } = components
  const { hello, certificate, authority } = await greet({ address, signal })
  const pinned =
    authority !== undefined &&
    fingerprintOf(authority) === asking.token.fingerprint &&
    isIssuedBy(certificate, authority) &&
    identityOf(certificate)?.fleetId === hello.fleetId
  if (!pinned) throw failure('tokenOfOtherFleet', { address: addressText(address) })
  asking.init.accept?.(hello)
  checkClocks(clock.wallMs(), hello.nowMs, address)
  const body = requestOf(asking, hello, clock)
  const answer = await askPeer(
    {
      address,
      path: '/v1/join',
      body,
      ca: authority.toString(),
      signal,
      check: shown => {
        if (identityOf(shown)?.fleetId === hello.fleetId) return
        throw failure('tokenOfOtherFleet', { address: addressText(address) })
      },
    },
    { limits },
  )
  if (isPending(answer)) return 'Pending'
  const admitted = readAdmitted(answer)
  if (admitted === undefined || !isForUs(admitted, asking, hello.fleetId)) {
    const detail = `${addressText(address)} gave what is not for this host`
    throw failure('fleetUnreachable', { detail })
  }
  return admitted
}

function requestOf(
  { init, token, machineId, joining, keys }: Asking,
  hello: { fleetId: string; nonce: string },
  clock: Clock,
): JoinRequest {
  const { name, address, rack, version } = init
  const content = {
    version,
    atMs: clock.wallMs(),
    nonce: hello.nonce,
    name,
    machineId,
    address,
    ...(rack === undefined ? {} : { rack }),
    tokenId: token.id,
    tokenSecret: token.secret,
    joinId: joining.joinId,
  }
  return signRequest<JoinRequest>(hello.fleetId, content, { peer: joining.peer, ...keys })
}

/** Whether the certificates are for our name and keys, by authorities of the fleet we asked. */
function isForUs(
  { certificates, authorities, member, fleet }: Admitted,
  asking: Asking,
  fleetId: string,
): boolean {
  const { init, joining, token } = asking
  if (fleet.fleetId !== fleetId || member.name !== init.name) return false
  if (member.peerId !== joining.peer.peerId) return false
  if (!authorities.trusted.some(each => fingerprintOf(each.hosts) === token.fingerprint)) {
    return false
  }
  return (['etcd', 'hosts'] as const).every(kind => {
    const certificate = new X509Certificate(certificates[kind])
    const said = identityOf(certificate)
    return (
      certificate.checkPrivateKey(asking.keys[kind].privateKey) &&
      authorities.trusted.some(each => isIssuedBy(certificate, new X509Certificate(each[kind]))) &&
      said?.fleetId === fleetId &&
      said.name === init.name &&
      said.peerId === joining.peer.peerId &&
      said.hostId === member.hostId
    )
  })
}
