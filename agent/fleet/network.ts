import type { Clock } from '../../base/clock.ts'
import { sleep } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import type { Registry } from '../../base/metrics.ts'
import type { Random } from '../../base/random.ts'
import { type FactsView, noFacts } from '../../cluster/fleet/facts.ts'
import type { MemberAddress } from '../../cluster/fleet/member.ts'
import type { OwnFacts } from '../../cluster/gossip/facts-message.ts'
import { startGossip } from '../../cluster/gossip/gossip.ts'
import type { MemberList } from '../../cluster/membership/members.ts'
import type { AllowList } from '../../cluster/peers/allow-list.ts'
import { startDiscovery } from '../../cluster/peers/discovery.ts'
import { fleetTagOf } from '../../cluster/peers/fleet-tag.ts'
import { startPeers } from '../../cluster/peers/peers.ts'
import type { Store } from '../../cluster/store/store.ts'
import type { Config } from '../config.ts'
import { ownVersion } from '../host-controller.ts'
import type { HeldLease } from '../host-lease.ts'
import { createPeerTransfers, type OwnPeerTransfers } from '../images/open-peer-transfers.ts'
import type { FleetFolder } from '../membership/fleet-folder.ts'
import { type Membership, startMembership, type TlsChange } from '../membership/membership.ts'
import { ensureCertificates } from '../membership/renewal.ts'
import { Undo } from '../undo.ts'
import type { EtcdParts } from './etcd-parts.ts'
import type { Voters } from './voters.ts'

/** Whose place in the network it is. */
export interface NetworkInit {
  config: Config
  fleet: FleetFolder
  address: MemberAddress
  etcd: EtcdParts
  voters: Voters
  lease: HeldLease
}

/** What being in it needs. */
export interface NetworkComponents {
  store: Store
  clock: Clock
  random: Random
  log: Log
  limits: Limits
  metrics: Registry
}

/** This host among the others: membership, peers, gossip, and being found. */
export interface Network {
  /** Undefined until it has begun. */
  membership(): Membership | undefined
  /** What this host and the others give each other of images. */
  transfers: OwnPeerTransfers
  facts(): FactsView
  onFacts(listener: (host: string) => void): () => void
  tellFacts(measure: () => OwnFacts): void
  /** This host was removed from its fleet: called once. */
  onRemoved(listener: () => void): void
  /** The highest era of which another host has told, when it is beyond this host's own. */
  higherEra(): number | undefined
  /** Why it has not begun, or what else is wrong; undefined when nothing is. */
  problem(): string | undefined
  stop(): Promise<void>
}

const retryMs = 2_000

/**
 * Takes this host's place among the others, in the background: certificates that ended while the
 * host was off may take as long as it takes for a host to come that can sign.
 */
export function joinNetwork(init: NetworkInit, components: NetworkComponents): Network {
  const { clock, log } = components
  const stopping = new AbortController()
  const factsListeners = new Set<(host: string) => void>()
  const removedListeners = new Set<() => void>()
  const transfers = createPeerTransfers({ ...init }, components)
  const measuring = Promise.withResolvers<() => OwnFacts>()
  const undo = new Undo()
  let membership: Membership | undefined
  let facts = noFacts
  let higherEra: number | undefined
  let problem: string | undefined = 'it has not begun'

  const begin = async (): Promise<void> => {
    const { fleet } = init
    const renewal = { ...components, address: () => init.address, version: ownVersion() }
    await ensureCertificates({ ...renewal, folder: fleet }, stopping.signal)
    membership = await startMembership(
      membershipInit(init),
      membershipComponents(init, components, {
        onTls: () => transfers.tlsChanged(),
        onRemoved() {
          for (const listener of removedListeners) listener()
        },
      }),
    )
    const { members, authorities } = membership
    undo.add(() => membership?.stop())
    await transfers.begin(members)
    undo.add(() => transfers.stop())
    undo.add(init.voters.onChange(() => authorities.refresh()))
    const discovery = await startDiscovery(
      {
        address: init.address.host,
        announce: {
          peerPort: init.address.peerPort,
          fleetTag: fleetTagOf(fleet.identity.fleetId),
        },
      },
      components,
    )
    undo.add(() => discovery.stop())
    const allowList = allowListOf(members)
    const peers = await startPeers(
      {
        identity: fleet.peer,
        host: fleet.identity.name,
        listen: { host: init.address.host, port: init.address.gossipPort },
        fleetId: fleet.identity.fleetId,
        era: fleet.known().fleet.era,
        version: ownVersion(),
      },
      { ...components, members: allowList },
    )
    undo.add(() => peers.stop())
    peers.onHigherEra(era => {
      higherEra = Math.max(era, higherEra ?? 0)
    })
    const measure = await Promise.race([measuring.promise, aborted(stopping.signal)])
    if (measure === undefined) return
    const { fleetId } = fleet.identity
    const gossip = await startGossip(
      { fleetId },
      { ...components, members: allowList, peers, measure },
    )
    undo.add(() => gossip.stop())
    facts = gossip.facts
    facts.onChange(host => {
      for (const listener of [...factsListeners]) listener(host)
    })
  }
  const run = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      try {
        await begin()
        problem = undefined
        return
      } catch (error) {
        if (stopping.signal.aborted) return
        problem = messageOf(error)
        log.error({ error: problem }, 'this host is not among the others yet')
        await undo.run(log)
        membership = undefined
        await sleep(clock, retryMs, stopping.signal).catch(() => {})
      }
    }
  }
  const running = run()
  return {
    membership: () => membership,
    transfers,
    facts: () => facts,
    onFacts(listener) {
      factsListeners.add(listener)
      return () => factsListeners.delete(listener)
    },
    tellFacts: measure => measuring.resolve(measure),
    onRemoved: listener => removedListeners.add(listener),
    higherEra: () => higherEra,
    problem: () => problem,
    async stop() {
      stopping.abort()
      await running
      await undo.run(log)
    },
  }
}

function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise(resolve => {
    if (signal.aborted) resolve(undefined)
    signal.addEventListener('abort', () => resolve(undefined), { once: true })
  })
}

function membershipInit({ config, address }: NetworkInit) {
  const { rack } = config.fleet
  return { address, version: ownVersion(), ...(rack !== undefined && { rack }) }
}

function membershipComponents(
  { fleet, etcd, voters, lease }: NetworkInit,
  components: NetworkComponents,
  { onTls, onRemoved }: { onTls(): void; onRemoved(): void },
) {
  return {
    ...components,
    folder: fleet,
    async isVoter(name: string) {
      const known = voters.isVoter(name)
      if (known !== undefined) return known
      // A guess would make a host drop the authorities' keys.
      throw failure('unavailable', {
        what: 'the list of voters',
        detail: 'no member of etcd has told it yet',
        advice: 'It is tried again',
      })
    },
    etcdEndpoints: () => voters.endpoints(),
    async onTls(change: TlsChange) {
      // etcd reads its certificate anew with each connection; its authorities only when it starts.
      if (change === 'authorities' && (await etcd.folder.hasData())) await etcd.process.ensure()
      etcd.connection.reloadTls()
      lease.refresh()
      onTls()
    },
    onRemoved,
  }
}

/** The approved members, as peers want to see them. */
function allowListOf(members: MemberList): AllowList {
  return {
    isMember: peerId => members.hasPeer(peerId),
    list: () => members.all().filter(({ state }) => state === 'Approved'),
    onChange: listener => members.onChange(listener),
  }
}
