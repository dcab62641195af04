import { type Clock, sleep, timestamp, withTimeout } from '../../base/clock.ts'
import { isFailure } from '../../base/errors.ts'
import { type Log, messageOf } from '../../base/log.ts'
import { type Random, randomInteger } from '../../base/random.ts'
import { leaderKey } from '../fleet/keys.ts'
import type { Timing } from '../fleet/timing.ts'
import type { Compare, Entry, Store } from '../store/store.ts'

/** Who leads, as the store has it: the value of `fleet/leader`. */
export interface Leader {
  host: string
  /** RFC 3339. */
  since: string
}

/** The time for which this host leads. */
export interface Term {
  /** Stands for this term: the create revision of the leader's key. */
  fence: number
  /** To be compared in every transaction that decides something; it fails once the term is over. */
  compare: Compare
  /** The host that led before, when it was another one. */
  predecessor?: string
  /** Aborted as soon as the term is known to be over; it may have been over before that. */
  signal: AbortSignal
}

/** How a host campaigns. */
export interface LeadershipInit {
  host: string
  timing: Pick<Timing, 'leaderLeaseTtlMs' | 'leaderRenewalMs'>
  /** Leads until the term's signal is aborted. When it fails, the term is given up. */
  lead(term: Term): Promise<void>
}

/** What it needs. */
export interface LeadershipComponents {
  store: Store
  clock: Clock
  random: Random
  log: Log
}

/** This host's part in electing a leader. */
export interface Leadership {
  /** Who led when this host last heard of it. */
  leader(): Leader | undefined
  /** Whether this host leads, as far as it knows. */
  leads(): boolean
  /** Gives up leading and campaigning; another can lead at once. */
  stop(): Promise<void>
}

/** A watch that says nothing for so long is not trusted: the key is read again. */
const lookAgainMs = 30_000
/** The waits after the store failed: doubled each time, with chance added. */
const failureWaitMs = { first: 100, most: 2_000 }
/** A rival waits up to this share of a renewal before it campaigns, so that few do at once. */
const hesitation = 0.5

/**
 * Campaigns for leadership until it is stopped. The lease alone is never trusted: two may believe
 * to lead at once, so whatever a leader decides compares `term.compare` in its transaction.
 */
export function startLeadership(
  init: LeadershipInit,
  components: LeadershipComponents,
): Leadership {
  const campaign = new Campaign(init, components)
  const running = campaign.run()
  return {
    leader: () => campaign.leader,
    leads: () => campaign.leads,
    async stop() {
      campaign.stopping.abort()
      await running
    },
  }
}

/** Why a term is over, when it is no fault. */
const termOver = new Error('the term is over')

class Campaign {
  readonly #init: LeadershipInit
  readonly #components: LeadershipComponents
  readonly stopping = new AbortController()
  leader: Leader | undefined
  leads = false
  #lastHost: string | undefined

  constructor(init: LeadershipInit, components: LeadershipComponents) {
    this.#init = init
    this.#components = components
  }

  async run(): Promise<void> {
    const { clock, log } = this.#components
    const { signal } = this.stopping
    let failures = 0
    let isFirst = true
    while (!signal.aborted) {
      try {
        await this.#tryOnce(isFirst)
        isFirst = false
        failures = 0
      } catch (error) {
        if (signal.aborted) break
        failures++
        log.warn({ failures, error: messageOf(error) }, 'campaigning for leadership failed')
        const { first, most } = failureWaitMs
        const waitMs = Math.min(most, first * 2 ** Math.min(10, failures - 1))
        await sleep(clock, waitMs + this.#chanceMs(waitMs), signal).catch(() => {})
      }
    }
  }

  /** Leads for a term, or waits until whoever leads no longer does. */
  async #tryOnce(isFirst: boolean): Promise<void> {
    const { store, clock } = this.#components
    const { signal } = this.stopping
    const { entry, revision } = await store.get(leaderKey)
    this.#sawLeader(entry)
    if (entry === undefined) return await this.#campaign()
    const { host } = entry.value as unknown as Leader
    if (isFirst && host === this.#init.host && entry.lease !== undefined) {
      // Our own, from before a restart of this daemon: nobody needs to wait until it ends.
      await this.#release(entry.lease)
      return
    }
    await this.#untilGone(revision, signal)
    if (signal.aborted) return
    const mostMs = Math.ceil(this.#init.timing.leaderRenewalMs * hesitation)
    await sleep(clock, this.#chanceMs(mostMs), signal).catch(() => {})
  }

  #chanceMs(mostMs: number): number {
    return randomInteger(this.#components.random, Math.max(1, mostMs))
  }

  #sawLeader(entry: Entry | undefined): void {
    this.leader = entry === undefined ? undefined : (entry.value as unknown as Leader)
    this.#lastHost = this.leader?.host ?? this.#lastHost
  }

  /** Resolves when the leader's key is gone, or was watched for long. */
  async #untilGone(afterRevision: number, signal: AbortSignal): Promise<void> {
    const { store, clock } = this.#components
    const watching = new AbortController()
    const combined = AbortSignal.any([signal, watching.signal])
    const timer = clock.setTimer(lookAgainMs + this.#chanceMs(lookAgainMs / 10), () =>
      watching.abort(),
    )
    try {
      const watch = store.watch(leaderKey, { afterRevision, signal: combined })
      for await (const { events } of watch) {
        for (const { key, entry } of events) {
          if (key !== leaderKey) continue
          this.#sawLeader(entry)
          if (entry === undefined) return
        }
      }
    } finally {
      timer.cancel()
      watching.abort()
    }
  }

  async #campaign(): Promise<void> {
    const { store, clock } = this.#components
    const { host, timing } = this.#init
    const sentMs = clock.monotonicMs()
    const lease = await store.grantLease(timing.leaderLeaseTtlMs)
    try {
      const value = { host, since: timestamp(clock) }
      const { succeeded, revision } = await store.transaction({
        compare: [{ key: leaderKey, modRevision: 0 }],
        operations: [{ put: leaderKey, value, lease }],
      })
      if (succeeded) await this.#lead({ lease, fence: revision, sentMs, value })
    } finally {
      // Also when nobody knows whether the key was put: with its lease it is gone.
      await this.#release(lease)
    }
  }

  async #release(lease: string): Promise<void> {
    const { store, log } = this.#components
    try {
      await store.revokeLease(lease)
    } catch (error) {
      if (isFailure(error, 'leaseNotFound')) return
      // It ends by itself.
      log.debug({ error: messageOf(error) }, 'the leader lease could not be revoked')
    }
  }

  async #lead(won: { lease: string; fence: number; sentMs: number; value: Leader }): Promise<void> {
    const { log } = this.#components
    const { fence, value } = won
    const predecessor = this.#lastHost
    this.#lastHost = value.host
    const over = new AbortController()
    const signal = AbortSignal.any([over.signal, this.stopping.signal])
    this.leader = value
    this.leads = true
    log.info({ fence }, 'this host leads')
    const compare = { key: leaderKey, createRevision: fence }
    const isOther = predecessor !== undefined && predecessor !== value.host
    const term = { fence, compare, signal, ...(isOther && { predecessor }) }
    const work = this.#init.lead(term)
    const endings = [
      work.finally(() => over.abort(termOver)),
      this.#renew(won.lease, won.sentMs, signal).finally(() => over.abort(termOver)),
      this.#untilLost(fence, signal).finally(() => over.abort(termOver)),
    ]
    const settled = await Promise.allSettled(endings)
    this.leads = false
    log.info({ fence }, 'this host leads no longer')
    for (const one of settled) if (one.status === 'rejected') throw one.reason
  }

  /** Returns when the lease is gone, or was not renewed for its whole life. */
  async #renew(lease: string, grantedMs: number, signal: AbortSignal): Promise<void> {
    const { store, clock, log } = this.#components
    const { leaderLeaseTtlMs, leaderRenewalMs } = this.#init.timing
    let renewedMs = grantedMs
    while (!signal.aborted) {
      await sleep(clock, leaderRenewalMs, signal).catch(() => {})
      if (signal.aborted) return
      const sentMs = clock.monotonicMs()
      const leftMs = renewedMs + leaderLeaseTtlMs - sentMs
      if (leftMs <= 0) return
      try {
        const tooLate = () => new Error('no answer before the lease ended')
        await withTimeout(clock, leftMs, store.renewLease(lease), tooLate)
        renewedMs = sentMs
      } catch (error) {
        if (isFailure(error, 'leaseNotFound')) return
        log.warn({ error: messageOf(error) }, 'the leader lease could not be renewed')
      }
    }
  }

  /** Returns when the key is not ours any more; watched anew when the watch breaks. */
  async #untilLost(fence: number, signal: AbortSignal): Promise<void> {
    const { store, clock } = this.#components
    let afterRevision = fence
    while (!signal.aborted) {
      try {
        for await (const batch of store.watch(leaderKey, { afterRevision, signal })) {
          const ours = batch.events.filter(({ key }) => key === leaderKey)
          if (ours.some(({ entry }) => entry?.createRevision !== fence)) return
          afterRevision = batch.revision
        }
      } catch {
        const found = await store.get(leaderKey).catch(() => undefined)
        if (found !== undefined) {
          if (found.entry?.createRevision !== fence) return
          afterRevision = found.revision
        }
      }
      await sleep(clock, failureWaitMs.first, signal).catch(() => {})
    }
  }
}
