import { backoffMs } from '../base/backoff.ts'
import type { BootClock } from '../base/boot-clock.ts'
import { type Clock, sleep } from '../base/clock.ts'
import { failure } from '../base/errors.ts'
import type { JsonValue } from '../base/json.ts'
import { type Log, messageOf } from '../base/log.ts'
import { hostLeaseKey, hostLifeKey } from '../cluster/fleet/keys.ts'
import type { HostLease } from '../cluster/fleet/member.ts'
import type { Timing } from '../cluster/fleet/timing.ts'
import type { Store } from '../cluster/store/store.ts'
import { type FenceWatchInit, startFenceWatch } from './fence-watch.ts'
import type { Guardian } from './guardian/client.ts'
import type { GuestClaim, HeartbeatAnswer, LeaseParameters } from './guardian/protocol.ts'

/** Whose lease it is, and how the guardian reaches etcd. */
export interface HostLeaseInit extends HostLease, Pick<FenceWatchInit, 'kill'> {
  host: string
  /** The guardian's data folder. */
  dataFolder: string
  timing: Timing
  /** `https://ADDRESS:PORT` of etcd's members, the one to be asked first before the others. */
  endpoints(): readonly string[]
  tls: LeaseParameters['tls']
  /** The name in etcd of a key of the store. */
  etcdKey(key: string): string
}

/** What holding a lease needs. */
export interface HostLeaseComponents {
  store: Store
  guardian: Guardian
  clock: Clock
  bootClock: BootClock
  log: Log
}

/** The host's lease: what it may claim guests by. */
export interface HeldLease {
  /** To be used in place of the guardian that was given, so that fenced guests are known here. */
  guardian: Guardian
  /**
   * The create revision of the host's lease key: what a claim compares. Undefined while there is no
   * lease, or its first renewal is to come. A hint: only the transaction that compares it decides.
   */
  leaseRevision(): number | undefined
  /** What the guardian is told of a guest that was claimed under a lease; nothing on a single host. */
  claim(leaseRevision: number, fenced: boolean): GuestClaim | undefined
  /** Why there is no lease, for people; undefined when nothing is wrong. */
  problem(): string | undefined
  /** Called whenever `leaseRevision` or `problem` tells something new. @returns ends it */
  onChange(listener: () => void): () => void
  /** Certificates or etcd's members have changed. */
  refresh(): void
  /** The daemon will be back within so long, and the host stays alive meanwhile. */
  announceRestart(forMs: number): Promise<void>
  /** Lets go of timers. The guardian goes on renewing: a stop never ends a lease. */
  stop(): void
}

const retry = { firstMs: 100, mostMs: 2_000 }

/** Holds the host's lease in a fleet, one life of it after the other, until it is stopped. */
export function startHostLease(init: HostLeaseInit, components: HostLeaseComponents): HeldLease {
  const { clock, guardian, log } = components
  const closing = new AbortController()
  const listeners = new Set<() => void>()
  let given: GivenLease | undefined
  let revision: number | undefined
  let problem: string | undefined
  let working = false
  let wanted = false

  const tell = (next: { revision?: number; problem?: string }): void => {
    if (next.revision === revision && next.problem === problem) return
    revision = next.revision
    problem = next.problem
    if (revision !== undefined) log.info({ revision }, 'the host has a lease')
    else log.warn({ problem }, 'the host has no lease')
    for (const listener of listeners) listener()
  }

  const onAnswer = ({ lease }: HeartbeatAnswer): void => {
    if (given === undefined) return
    const isOurs = lease?.leaseRevision === given.revision
    if (isOurs && !lease.gone) {
      if (lease.renewedMs !== undefined) tell({ revision: given.revision })
      return
    }
    // Etcd has it no more; or the guardian is a new one, and knows of none.
    if (isOurs) given.gone = true
    tell({ problem: isOurs ? 'the lease was not renewed in time' : 'the guardian is a new one' })
    void work()
  }

  /** Until a lease is given to the guardian; one at a time. Never rejects. */
  const work = async (): Promise<void> => {
    wanted = true
    if (working) return
    working = true
    for (let failures = 0; wanted && !closing.signal.aborted; ) {
      wanted = false
      try {
        given = await giveLease(given, init, components)
        await untilRenewed()
        failures = 0
      } catch (error) {
        if (closing.signal.aborted) break
        tell({ problem: messageOf(error) })
        wanted = true
        await sleep(clock, backoffMs(retry, ++failures), closing.signal).catch(() => {})
      }
    }
    working = false
  }

  /** The first renewal takes milliseconds; without this it would be seen a heartbeat later. */
  const untilRenewed = async (): Promise<void> => {
    const { heartbeatMs, fenceCheckMs } = init.timing
    for (let waitedMs = 0; waitedMs < heartbeatMs; waitedMs += fenceCheckMs) {
      await watch.ask()
      if (wanted || revision === given?.revision) return
      await sleep(clock, fenceCheckMs, closing.signal)
    }
  }

  const watch = startFenceWatch({ ...init, onAnswer }, components)
  void work()
  const isGone = () => void work()
  void followEnd({ ...init, isGone, signal: closing.signal }, components)
  return {
    guardian: watch.guardian,
    leaseRevision: () => revision,
    claim: (leaseRevision, fenced) => ({ leaseRevision, fenced }),
    problem: () => problem,
    onChange(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    refresh: () => void work(),
    announceRestart: forMs => guardian.expectSilence(forMs),
    stop() {
      closing.abort()
      watch.stop()
    },
  }
}

/**
 * Tells when the key goes. The guardian hears of it with its next renewal; a new key that is
 * there at once keeps the others from acting, whatever took the old one (deadline.ts: `wentEarly`).
 */
async function followEnd(
  { host, timing, isGone, signal }: HostLeaseInit & { isGone(): void; signal: AbortSignal },
  { store, clock, log }: HostLeaseComponents,
): Promise<void> {
  const key = hostLeaseKey(host)
  while (!signal.aborted) {
    try {
      const afterRevision = await store.revision()
      for await (const { events } of store.watch(key, { afterRevision, signal })) {
        if (events.some(event => event.key === key && event.type === 'delete')) isGone()
      }
    } catch (error) {
      if (!signal.aborted) log.debug({ error: messageOf(error) }, 'the lease key is not watched')
    }
    await sleep(clock, timing.heartbeatMs, signal).catch(() => {})
  }
}

interface GivenLease {
  leaseId: string
  revision: number
  gone: boolean
  /** Boot time just before it was asked for; undefined when its key was found. */
  grantedMs?: number
}

/**
 * Finds the host's lease key or makes it, and has the guardian renew its lease. A key of this host
 * and this boot is gone on with: whatever claimed guests under it is still this machine.
 * @throws hostNameTaken, and what store and guardian throw
 */
async function giveLease(
  before: GivenLease | undefined,
  init: HostLeaseInit,
  components: HostLeaseComponents,
): Promise<GivenLease> {
  const { store, guardian } = components
  const key = hostLeaseKey(init.host)
  const { entry } = await store.get(key)
  const found = entry && (entry.value as unknown as HostLease)
  if (found !== undefined && found.hostId !== init.hostId) {
    throw failure('hostNameTaken', { name: init.host })
  }
  const isLost = before?.gone === true && entry?.lease === before.leaseId
  const isOurs = found?.bootId === init.bootId && !isLost
  const given =
    entry?.lease !== undefined && isOurs
      ? { leaseId: entry.lease, revision: entry.createRevision, gone: false }
      : await makeKey(entry?.modRevision, init, components)
  await guardian.lease({
    leaseId: given.leaseId,
    leaseRevision: given.revision,
    key: init.etcdKey(key),
    endpoints: init.endpoints().slice(0, init.timing.endpointsMost),
    tls: init.tls,
    timing: init.timing,
    grantedMs: given.grantedMs,
  })
  return given
}

/**
 * Makes the key under a new lease. One that is there is deleted first, so that the create revision
 * is a new one: nothing that was claimed before counts under it.
 */
async function makeKey(
  modRevision: number | undefined,
  { host, hostId, bootId, timing }: HostLeaseInit,
  { store, bootClock }: HostLeaseComponents,
): Promise<GivenLease> {
  const key = hostLeaseKey(host)
  const detail = `${key} has changed meanwhile`
  const changed = () => failure('unavailable', { what: 'the lease', detail, advice: '' })
  if (modRevision !== undefined) {
    const compare = [{ key, modRevision }]
    const deleted = await store.transaction({ compare, operations: [{ delete: key }] })
    if (!deleted.succeeded) throw changed()
  }
  const grantedMs = bootClock.nowMs()
  const lease = await store.grantLease(timing.hostLeaseTtlMs)
  const value: JsonValue = { hostId, bootId }
  const compare = [{ key, modRevision: 0 }]
  // By the second key the leader knows this life from the last, also when it saw neither end.
  const operations = [
    { put: key, value, lease },
    { put: hostLifeKey(host), value },
  ]
  const made = await store.transaction({ compare, operations })
  if (made.succeeded) return { leaseId: lease, revision: made.revision, gone: false, grantedMs }
  await store.revokeLease(lease)
  throw changed()
}
