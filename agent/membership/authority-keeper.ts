import { createPrivateKey, X509Certificate } from 'node:crypto'
import type { Clock } from '../../base/clock.ts'
import { failure, isFailure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import { createTurns } from '../../base/turns.ts'
import { type Again, createWorkQueue } from '../../base/work-queue.ts'
import { authoritiesKey, memberKey } from '../../cluster/fleet/keys.ts'
import {
  type AuthoritiesRecord,
  acknowledgeTrust,
  advanceRotation,
  beginRotation,
  certificatesIn,
  nextGeneration,
  type RotationState,
  readAuthorities,
  refuseSecondRotation,
  signersIn,
  trustByHost,
} from '../../cluster/membership/authorities.ts'
import { type AuthorityPair, createAuthorityPair } from '../../cluster/membership/authority.ts'
import type { MemberList } from '../../cluster/membership/members.ts'
import { memberOf } from '../../cluster/membership/members.ts'
import { followPrefix } from '../../cluster/store/follow.ts'
import type { Store } from '../../cluster/store/store.ts'
import { readAuthorityPairs } from './fleet-file.ts'
import type { FleetFolder } from './fleet-folder.ts'
import { askMember } from './member-client.ts'
import type { PeerRoutes } from './server.ts'

/** What keeping authorities needs. */
export interface AuthorityKeeperComponents {
  folder: FleetFolder
  store: Store
  members: MemberList
  clock: Clock
  random: Random
  log: Log
  limits: Pick<Limits, 'memberAnswerBytes'>
  /** Whether a host is to have a voter of etcd, and with it the authorities' keys. */
  isVoter(name: string): Promise<boolean>
  /** Gives this host certificates of the authority that signs now. */
  renew(): Promise<void>
  /**
   * The bundles on disk may have changed: called after each change, and once after each start,
   * because the daemon may have died in between. Resolves when everything on this host goes by
   * them, etcd too, which reads them only when it starts: only then are the others told.
   */
  onAuthorities(): Promise<void>
}

/** Keeps what this host has of the authorities as the store says. */
export interface AuthorityKeeper {
  /**
   * Changes the fleet's authorities: on this host, or on one that can sign. It goes on by itself.
   * @throws rotationUnderWay, noSigner
   */
  rotate(): Promise<RotationState>
  /** Looks again now, for example because this host became a voter. */
  refresh(): void
  routes: PeerRoutes
  stop(): Promise<void>
}

const againMs = 60_000
/** While they change, each host that can sign looks so often whether the next step can be taken. */
const rotatingMs = 1_000

/** Starts keeping them. Level-triggered: it may be killed at any point and takes up what is left. */
export function startAuthorityKeeper(components: AuthorityKeeperComponents): AuthorityKeeper {
  const { store, clock, log } = components
  const turns = createTurns()
  const applied: Applied = {}
  const queue = createWorkQueue(
    {
      handle: () => turns.take(() => keep(components, applied)),
      backoff: { firstMs: 500, mostMs: 30_000 },
    },
    { clock, log },
  )
  const refresh = () => queue.add('authorities')
  const following = followPrefix(
    authoritiesKey,
    { onListed: refresh, onChanged: refresh },
    { store, clock, log },
  )
  const rotate = async (): Promise<RotationState> => {
    if (canSign(components)) return turns.take(() => rotateHere(components)).finally(refresh)
    return rotateElsewhere(components)
  }
  return {
    rotate,
    refresh,
    routes: authorityRoutes(components, rotate),
    async stop() {
      await following.stop()
      await queue.stop()
    },
  }
}

function canSign({ folder }: AuthorityKeeperComponents): boolean {
  const { signing } = folder.known().authorities
  return folder.authorityPairs().some(({ generation }) => generation === signing)
}

async function rotateHere(components: AuthorityKeeperComponents): Promise<RotationState> {
  const { folder, store, clock, random, log } = components
  await refuseSecondRotation(store)
  const { record } = await readAuthorities(store)
  const generation = nextGeneration(record)
  const { fleetId } = folder.identity
  const pair = createAuthorityPair({ fleetId, generation }, { clock, random })
  // On disk first: what the store names must never be without somebody who can sign by it.
  await folder.saveAuthorityPairs([...pairsIn(folder, record), pair])
  await beginRotation(store, pair, clock)
  log.info({ generation }, 'new authorities are being introduced')
  return advanceRotation(store)
}

async function rotateElsewhere(components: AuthorityKeeperComponents): Promise<RotationState> {
  const { folder, store } = components
  const { record } = await readAuthorities(store)
  const signers = signersIn(await trustByHost(store), record.signing)
  let detail = 'none is known'
  for (const name of signers.filter(each => each !== folder.identity.name)) {
    try {
      return (await askMember(name, { path: '/v1/signing/rotate', body: {} }, components)) as never
    } catch (error) {
      if (isFailure(error, 'rotationUnderWay')) throw error
      detail = messageOf(error)
    }
  }
  throw failure('noSigner', { detail })
}

/** The authorities by which everything on this host goes. */
interface Applied {
  record?: AuthoritiesRecord
}

/** One look at the store, and what follows from it. */
async function keep(components: AuthorityKeeperComponents, applied: Applied): Promise<Again> {
  const { folder, store, log } = components
  const { name, hostId } = folder.identity
  const { record } = await readAuthorities(store)
  const { entry } = await store.get(memberKey(name))
  const self = entry === undefined ? undefined : memberOf(entry)
  if (entry === undefined || self?.hostId !== hostId || self.state !== 'Approved') {
    return { againMs }
  }
  if (JSON.stringify(record) !== JSON.stringify(folder.known().authorities)) {
    await folder.saveAuthorities(record)
    log.info({ trusted: record.trusted.map(each => each.generation) }, 'authorities have changed')
  }
  if (JSON.stringify(record) !== JSON.stringify(applied.record)) {
    await components.onAuthorities()
    applied.record = record
  }
  await keepKeys(record, components)
  if (folder.generation() !== record.signing) await components.renew()
  await acknowledgeTrust(store, entry, name, {
    hostId,
    trusts: record.trusted.map(({ generation }) => generation),
    certificates: folder.generation(),
    signs: folder.authorityPairs().map(({ generation }) => generation),
  })
  const signers = signersIn(await trustByHost(store), record.signing)
  if (JSON.stringify(signers) !== JSON.stringify(folder.known().signers)) {
    await folder.remember({ signers })
  }
  if (record.trusted.length === 1) return { againMs }
  // Those few that sign take it on, so that a thousand hosts do not all read what all have done.
  if (canSign(components)) {
    const { state, waitingFor } = await advanceRotation(store)
    log.debug({ state, waitingFor: waitingFor.slice(0, 10) }, 'authorities are being changed')
  }
  return { againMs: rotatingMs }
}

/** The pairs on disk that the store knows. */
function pairsIn(folder: FleetFolder, record: AuthoritiesRecord): AuthorityPair[] {
  return folder
    .authorityPairs()
    .filter(pair => certificatesIn(record, pair.generation)?.hosts === pair.hosts.certificate)
}

/** A voter has the keys of every authority that is trusted; nobody else has any. */
async function keepKeys(
  record: AuthoritiesRecord,
  components: AuthorityKeeperComponents,
): Promise<void> {
  const { folder, isVoter, store } = components
  const { name } = folder.identity
  const held = pairsIn(folder, record)
  const missing = record.trusted.filter(
    ({ generation }) => !held.some(pair => pair.generation === generation),
  )
  let wanted = held
  if (await isVoter(name)) {
    if (missing.length > 0) wanted = await fetchKeys(record, held, components)
  } else if (held.length > 0) {
    const others = signersIn(await trustByHost(store), record.signing)
    // The last one keeps them: without any the fleet could let nobody in any more.
    if (others.some(other => other !== name)) wanted = []
  }
  if (sameGenerations(wanted, folder.authorityPairs())) return
  await folder.saveAuthorityPairs(wanted)
}

function sameGenerations(a: readonly AuthorityPair[], b: readonly AuthorityPair[]): boolean {
  return a.length === b.length && a.every(pair => b.includes(pair))
}

async function fetchKeys(
  record: AuthoritiesRecord,
  held: readonly AuthorityPair[],
  components: AuthorityKeeperComponents,
): Promise<AuthorityPair[]> {
  const { folder, store, log } = components
  const pairs = new Map(held.map(pair => [pair.generation, pair]))
  const trust = await trustByHost(store)
  for (const { generation } of record.trusted) {
    for (const name of signersIn(trust, generation)) {
      if (pairs.has(generation) || name === folder.identity.name) continue
      try {
        const answer = await askMember(name, { path: '/v1/signing/keys', body: {} }, components)
        for (const pair of readAuthorityPairs(answer) ?? []) {
          const expected = certificatesIn(record, pair.generation)
          const genuine =
            expected?.etcd === pair.etcd.certificate && expected.hosts === pair.hosts.certificate
          if (genuine && isWhole(pair) && !pairs.has(pair.generation))
            pairs.set(pair.generation, pair)
        }
      } catch (error) {
        log.warn({ host: name, error: messageOf(error) }, "the authorities' keys did not come")
      }
    }
  }
  return [...pairs.values()].sort((a, b) => a.generation - b.generation)
}

/** Whether each key is that of its certificate: what can't sign is not kept as if it could. */
function isWhole(pair: AuthorityPair): boolean {
  return (['etcd', 'hosts'] as const).every(kind => {
    const { certificate, key } = pair[kind]
    try {
      return new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key))
    } catch {
      return false
    }
  })
}

/** Keys for a voter-to-be, and a rotation for a host that can't begin one; members only. */
function authorityRoutes(
  components: AuthorityKeeperComponents,
  rotate: () => Promise<RotationState>,
): PeerRoutes {
  const { folder, isVoter, log } = components
  return (app, requireMember) => {
    app.post('/v1/signing/keys', async request => {
      const { name } = requireMember(request)
      if (!(await isVoter(name))) throw failure('authorityKeysRefused', { name })
      log.info({ host: name }, "a voter was given the authorities' keys")
      return folder.authorityPairs()
    })
    app.post('/v1/signing/rotate', async request => {
      requireMember(request)
      if (!canSign(components)) throw failure('noSigner', { detail: 'this one can not' })
      return rotate()
    })
  }
}
