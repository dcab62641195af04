import { type Clock, sleep } from '../../base/clock.ts'
import { isFailure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import { createWorkQueue, type WorkQueue } from '../../base/work-queue.ts'
import { fleetKey } from '../../cluster/fleet/keys.ts'
import type { FleetRecord, Member, MemberAddress } from '../../cluster/fleet/member.ts'
import { createAdmission } from '../../cluster/membership/admission.ts'
import { certificatesIn, readAuthorities } from '../../cluster/membership/authorities.ts'
import { fingerprintOf } from '../../cluster/membership/authority.ts'
import {
  createMemberList,
  type FollowedMemberList,
  type MemberList,
  updateOwnMember,
} from '../../cluster/membership/members.ts'
import {
  createToken,
  type TokenRecord,
  type TokenRequest,
} from '../../cluster/membership/tokens.ts'
import { followPrefix } from '../../cluster/store/follow.ts'
import type { Entry, Store } from '../../cluster/store/store.ts'
import { type AuthorityKeeper, startAuthorityKeeper } from './authority-keeper.ts'
import type { FleetFolder } from './fleet-folder.ts'
import { joinRoutes } from './join-routes.ts'
import { askMember, type MemberRequest } from './member-client.ts'
import { type Renewal, startRenewal } from './renewal.ts'
import { type PeerRoutes, type PeerServer, startPeerServer } from './server.ts'

/** How a host takes part in its fleet. */
export interface MembershipInit {
  /** Where the others reach it. */
  address: MemberAddress
  rack?: string
  version: string
  /** Where the peer port is bound, when not on `address`. */
  listen?: { host: string; port: number }
  /** Routes that other parts offer on the peer port. */
  routes?: readonly PeerRoutes[]
}

/** What changed in the fleet folder. */
export type TlsChange = 'certificates' | 'authorities'

/** What membership needs. */
export interface MembershipComponents {
  folder: FleetFolder
  store: Store
  clock: Clock
  random: Random
  log: Log
  limits: Limits
  /** Whether a host is to have a voter of etcd: voters hold the authorities' keys. */
  isVoter(name: string): Promise<boolean>
  /** Where etcd's clients connect, `https://HOST:PORT`. */
  etcdEndpoints(): string[]
  /**
   * Certificates, or the authorities that are trusted, are new on disk. It resolves when whoever
   * uses them (etcd, its client, the guardian) goes by them. For `authorities` it is called after
   * each start too, so it must do nothing when nothing is to be done.
   */
  onTls(change: TlsChange): Promise<void>
  /** This host was removed: it is nobody in the fleet any more. Called once. */
  onRemoved(): void
}

/** This host's part in its fleet: the peer port, its certificates, and who belongs to the fleet. */
export interface Membership {
  readonly members: MemberList
  readonly server: PeerServer
  readonly renewal: Renewal
  readonly authorities: AuthorityKeeper
  /** Makes a join token that names hosts of the fleet as it is now. */
  createToken(
    request: Omit<TokenRequest, 'fingerprint' | 'addresses' | 'era'>,
  ): Promise<{ text: string; record: TokenRecord }>
  /** Asks another member something on its peer port. */
  ask(name: string, request: MemberRequest): Promise<unknown>
  stop(): Promise<void>
}

const persistMs = 500

/**
 * Starts it; the store is open and the certificates are valid (`ensureCertificates`). Throws when
 * the peer port is taken.
 */
export async function startMembership(
  init: MembershipInit,
  components: MembershipComponents,
): Promise<Membership> {
  const { folder, store, clock, random, log, limits, onTls } = components
  const members = createMemberList(folder.known().members)
  const renewal = startRenewal(
    { ...components, address: () => init.address, version: init.version },
    async () => {
      server?.reload()
      await onTls('certificates')
    },
  )
  const shared = { ...components, members, version: init.version }
  const authorities = startAuthorityKeeper({
    ...shared,
    renew: () => renewal.now(),
    async onAuthorities() {
      server?.reload()
      await onTls('authorities')
    },
  })
  const admission = createAdmission({
    ...shared,
    known: () => folder.known(),
    signing: generation => folder.authorityPairs().find(pair => pair.generation === generation),
  })
  const listen = init.listen ?? { host: init.address.host, port: init.address.peerPort }
  const routes = [joinRoutes({ ...shared, admission }), authorities.routes, ...(init.routes ?? [])]
  let server: PeerServer | undefined
  const following = followStore(init, members, components)
  const stop = async (): Promise<void> => {
    await server?.close()
    await following.stop()
    await authorities.stop()
    await renewal.stop()
  }
  try {
    server = await startPeerServer(
      { ...listen, routes },
      {
        ...shared,
        fleetId: folder.identity.fleetId,
        authorities: () => folder.known().authorities,
      },
    )
  } catch (error) {
    await stop()
    throw error
  }
  return {
    members,
    server,
    renewal,
    authorities,
    async createToken(request) {
      const { record } = await readAuthorities(store)
      const signing = certificatesIn(record, record.signing)
      const fingerprint = signing === undefined ? '' : fingerprintOf(signing.hosts)
      const { era } = folder.known().fleet
      const addresses = addressesFor(init.address, folder, members)
      const complete = { ...request, fingerprint, addresses, era }
      return createToken(complete, { store, clock, random, limits })
    },
    ask: (name, request) => askMember(name, request, { folder, members, clock, limits }),
    stop() {
      log.debug({}, 'membership stops')
      return stop()
    },
  }
}

/** This host first, then those that can sign, then others. */
function addressesFor(own: MemberAddress, folder: FleetFolder, members: MemberList) {
  const { signers } = folder.known()
  const others = members
    .all()
    .filter(({ name, state }) => state === 'Approved' && name !== folder.identity.name)
    .sort((a, b) => Number(signers.includes(b.name)) - Number(signers.includes(a.name)))
  return [own, ...others.map(({ address }) => address)].map(({ host, peerPort }) => ({
    host,
    peerPort,
  }))
}

/** Follows what the store says of the fleet, and writes it down for the next start. */
function followStore(
  init: MembershipInit,
  members: FollowedMemberList,
  components: MembershipComponents,
): { stop(): Promise<void> } {
  const { folder, store, clock, log, onRemoved } = components
  const stopping = new AbortController()
  const queue = createWorkQueue(
    {
      async handle(key) {
        if (key === 'self') return announce(init, components)
        // Many changes at once are written down once.
        await sleep(clock, persistMs, stopping.signal).catch(() => {})
        await persist(members, components)
        return undefined
      },
      backoff: { firstMs: 500, mostMs: 30_000 },
    },
    { clock, log },
  )
  let removed = false
  const stopListening = members.onChange(() => {
    queue.add('known')
    if (removed || !members.isCurrent() || isStillMember(members, folder)) return
    removed = true
    log.error({ host: folder.identity.name }, 'this host was removed from the fleet')
    onRemoved()
  })
  const list = members.follow({ store, clock, log })
  const fleet = followFleet(queue, components)
  queue.add('self')
  return {
    async stop() {
      stopping.abort()
      stopListening()
      await Promise.all([list.stop(), fleet.stop()])
      await queue.stop()
    },
  }
}

function isStillMember(members: MemberList, { identity }: FleetFolder): boolean {
  const own = members.get(identity.name)
  return own?.hostId === identity.hostId && own.state === 'Approved'
}

function followFleet(queue: WorkQueue, { folder, store, clock, log }: MembershipComponents) {
  const take = (entry: Entry | undefined): void => {
    if (entry?.key !== fleetKey) return
    folder
      .remember({ fleet: entry.value as unknown as FleetRecord })
      .catch(error => log.warn({ error: messageOf(error) }, 'the fleet folder was not written'))
    queue.add('known')
  }
  return followPrefix(
    fleetKey,
    { onListed: entries => entries.forEach(take), onChanged: (_key, entry) => take(entry) },
    { store, clock, log },
  )
}

async function persist(members: MemberList, components: MembershipComponents): Promise<void> {
  const { folder, etcdEndpoints } = components
  // A list that was never read is what is on disk already.
  if (!members.isCurrent()) return
  const own = members.get(folder.identity.name)
  const member: Member = own?.hostId === folder.identity.hostId ? own : folder.known().member
  const endpoints = etcdEndpoints()
  const places = endpoints.length > 0 ? { etcdEndpoints: endpoints } : {}
  await folder.remember({ members: members.all(), member, ...places })
}

/** Tells the others where this host is reached and what it runs, if that has changed. */
async function announce(
  { address, rack, version }: MembershipInit,
  { folder, store }: MembershipComponents,
): Promise<undefined> {
  const { name, hostId } = folder.identity
  const self = { name, hostId, machineId: folder.machineId, address, version }
  try {
    await updateOwnMember(store, rack === undefined ? self : { ...self, rack })
  } catch (error) {
    // Whoever follows the members tells that.
    if (!isFailure(error, 'notMember')) throw error
  }
}
