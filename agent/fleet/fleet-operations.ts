import { Readable } from 'node:stream'
import type { Clock } from '../../base/clock.ts'
import { failure, isFailure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import { makeBackup } from '../../cluster/etcd/backup.ts'
import { placementPrefix } from '../../cluster/fleet/keys.ts'
import { placementOf } from '../../cluster/fleet/placement.ts'
import { dropHolder } from '../../cluster/image-holders.ts'
import { forgetHost } from '../../cluster/leader/forget.ts'
import { approveMember, removeMember } from '../../cluster/membership/members.ts'
import { listTokens, revokeToken, type TokenRecord } from '../../cluster/membership/tokens.ts'
import { createObjects } from '../../cluster/objects.ts'
import type { MirroredStore } from '../../cluster/store/mirrored.ts'
import type { Store } from '../../cluster/store/store.ts'
import type { FleetOperations, TokenStatus } from '../../interface/api/fleet-operations.ts'
import { hostKind } from '../../resources/host.ts'
import type { Config } from '../config.ts'
import type { Guardian } from '../guardian/client.ts'
import { ownVersion } from '../host-controller.ts'
import type { FleetFolder } from '../membership/fleet-folder.ts'
import type { EtcdParts } from './etcd-parts.ts'
import { explainOperation } from './explain-operation.ts'
import { fleetStatus } from './fleet-status.ts'
import { leaveFleet } from './leave-fleet.ts'
import type { Network } from './network.ts'
import { policyOf } from './policy.ts'
import { rejoinWork } from './rejoin-work.ts'
import { requireOthers } from './sign-off.ts'
import type { Transitions } from './transitions.ts'
import type { Voters } from './voters.ts'

/** The host on which the operator works. */
export interface FleetOperationsInit {
  config: Config
  fleet: FleetFolder
  etcd: EtcdParts
  voters: Voters
  network: Network
  guardian: Guardian
}

/** What operations need. */
export interface FleetOperationsComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
  store: MirroredStore
  freshStore: Store
  transitions: Transitions
}

const defaultTokenMs = 3_600_000
/** log2 of scrypt's N: about a second for each guess of the passphrase (RFC 7914). */
const backupCost = 17

/** What an operator can do with a fleet, from any of its hosts. */
export function fleetOperations(
  init: FleetOperationsInit,
  components: FleetOperationsComponents,
): FleetOperations {
  const { fleet, network } = init
  const { freshStore: store, random, transitions } = components
  const refuse = async (): Promise<never> => {
    throw failure('inFleetAlready', { host: fleet.identity.name })
  }
  const membership = () => {
    const found = network.membership()
    if (found !== undefined) return found
    const detail = network.problem() ?? 'it is starting'
    throw failure('unavailable', { what: 'the fleet', detail, advice: 'Try again in a moment' })
  }
  const objects = createObjects({}, { ...components, store })
  const removable = async (name: string): Promise<void> => {
    const { entries } = await store.list(placementPrefix)
    const left = entries.map(placementOf).filter(({ host, state }) => {
      return host === name && state !== 'Gone' && state !== 'Lost' && state !== 'Refused'
    })
    if (left.length === 0) return
    const names = left.slice(0, 5).map(({ namespace, name: one }) => `${namespace}/${one}`)
    throw failure('hostHasMachines', { host: name, count: left.length, names: names.join(', ') })
  }
  /** Nothing new comes to a host that is leaving. */
  const cordonAndCheck = async (name: string): Promise<void> => {
    const setSchedulable = (schedulable: boolean) =>
      objects.change(hostKind, { name }, host => ({ ...host, spec: { ...host.spec, schedulable } }))
    const { schedulable } = (await objects.get(hostKind, { name })).spec
    await setSchedulable(false)
    await removable(name).catch(async error => {
      await setSchedulable(schedulable)
      throw error
    })
  }
  const removeHost = async (name: string): Promise<void> => {
    await removable(name)
    if (name === fleet.identity.name) await requireOthers(store, name)
    await removeMember(store, name)
    await dropHolder(name, objects)
    await objects.remove(hostKind, { name }).catch(() => {})
  }
  return {
    status: () => fleetStatus(init, components),
    init: refuse,
    async join(token) {
      transitions.begin(rejoinWork({ config: init.config, fleet, token }, components))
    },
    async leave({ force }) {
      const { name } = fleet.identity
      // As they were last known when nobody can be asked: leaving by force needs nobody.
      const members = network.membership()?.members.all() ?? fleet.known().members
      const others = members.filter(member => member.name !== name && member.state === 'Approved')
      if (others.length === 0) throw failure('lastHostOfFleet', { host: name })
      const how = force ? 'forced' : 'drained'
      // Before anything here is ended for nothing.
      await requireOthers(store, name).catch(error => {
        if (!force || isFailure(error, 'lastHostOfFleet')) throw error
      })
      if (!force) await removable(name)
      const prepare = force ? undefined : () => cordonAndCheck(name)
      transitions.begin(leaveFleet({ ...init, how, ...(prepare && { prepare }) }, components))
    },
    async createToken({ ttlMs = defaultTokenMs, uses = 1, ...rest }) {
      const { text, record } = await membership().createToken({ ttlMs, uses, ...rest })
      return { ...tokenStatus(record), token: text }
    },
    listTokens: async () => (await listTokens(store)).map(tokenStatus),
    revokeToken: id => revokeToken(store, id),
    async approveHost(name) {
      await approveMember(store, name)
    },
    removeHost,
    forgetHost: name => forgetHost(name, { ...components, store, objects }),
    async rotateAuthorities() {
      await membership().authorities.rotate()
    },
    async backup(passphrase) {
      const pairs = fleet.authorityPairs()
      const secrets: Record<string, string> =
        pairs.length === 0 ? {} : { authorities: JSON.stringify(pairs) }
      const init = { version: ownVersion(), secrets, passphrase, scryptCost: backupCost }
      return Readable.from(makeBackup(init, { ...components, store, random }))
    },
    restore: refuse,
    explain: explainOperation(
      { fenced: true, policy: policyOf(init.config) },
      {
        ...components,
        store: components.store,
        facts: {
          of: host => network.facts().of(host),
          all: () => network.facts().all(),
          onChange: listener => network.onFacts(listener),
        },
      },
    ),
  }
}

function tokenStatus({
  id,
  expiresAt,
  usesLeft,
  rack,
  createdAt,
}: Pick<TokenRecord, 'id' | 'expiresAt' | 'usesLeft' | 'rack' | 'createdAt'>): TokenStatus {
  return { id, expiresAt, usesLeft, createdAt, ...(rack !== undefined && { rack }) }
}
