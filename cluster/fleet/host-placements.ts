import { isDeepStrictEqual } from 'node:util'
import { type Clock, timestamp } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { JsonValue } from '../../base/json.ts'
import type { Log } from '../../base/log.ts'
import type { Amounts } from '../../resources/host.ts'
import { followPrefix } from '../store/follow.ts'
import type { Compare, Entry, Store } from '../store/store.ts'
import { hostLeaseKey, hostReportKey, placementKey, placementPrefix } from './keys.ts'
import { claimed, moved, type Placement, placementOf, writePlacement } from './placement.ts'

/** Whose placements. */
export interface HostPlacementsInit {
  host: string
  /** The create revision of the host's lease key, while the lease lives. */
  leaseRevision(): number | undefined
  /** A machine's placement, or whether it has one, has changed. */
  onChange(uid: string): void
}

/** What they need. */
export interface HostPlacementsComponents {
  store: Store
  clock: Clock
  log: Log
}

/** Why something was refused or lost: a word for programs, a sentence for people. */
export interface Explanation {
  reason: string
  message: string
}

/**
 * What this host was given, and the steps that are the host's to take. What is known may be old;
 * each step compares the revision that is known, so one that rests on old knowledge does nothing.
 * Steps answer whether they were taken; when not, `onChange` follows as soon as it is known why.
 */
export interface HostPlacements {
  /** False until all were read once: until then nothing is known of any machine. */
  isKnown(): boolean
  /** The placement of a machine, whoever has it. */
  of(uid: string): Placement | undefined
  /** Those that name this host. */
  ours(): Placement[]
  /**
   * Takes the machine, for this start: from here on nobody else may run it while our lease lives.
   * @throws placementChanged when it is not ours to take any more
   * @throws hostLeaseMissing when this host has no lease to take it under
   */
  claim(uid: string, onHostLoss: Placement['onHostLoss']): Promise<Placement>
  /** Gives it back untouched. */
  refuse(uid: string, why: Explanation): Promise<boolean>
  /** Its guest does not run and needs no room. */
  rest(uid: string): Promise<boolean>
  /** It is to run again: asks for room. */
  wake(uid: string, request: Amounts): Promise<boolean>
  /** Gives up a machine whose guest has ended, so that it starts elsewhere. */
  surrender(uid: string, why: Explanation): Promise<boolean>
  /**
   * Of a fleet that recovers: the guest runs here, whatever the backup says of its machine.
   * @param given what to write where the backup knows of no placement at all
   * @param beganAfter revisions up to this one are the backup's
   * @returns false when another host has claimed it since, or something has changed
   */
  takeOver(given: Placement, beganAfter: number): Promise<boolean>
  /** Of a fleet that recovers: nothing is here of a machine that should be. */
  miss(uid: string, why: Explanation): Promise<boolean>
  /** Says that all which runs here is in its placements. */
  report(era: number): Promise<void>
  /** Its machine is gone, and so is all that was here of it. */
  remove(uid: string): Promise<void>
  stop(): Promise<void>
}

/** Follows the placements of the fleet for one host. */
export function createHostPlacements(
  init: HostPlacementsInit,
  components: HostPlacementsComponents,
): HostPlacements {
  const { store, clock } = components
  const entries = new Map<string, Entry>()
  let known = false
  const uidOf = (key: string): string => key.slice(placementPrefix.length)
  /** How a key is at a revision; what was read or told earlier never replaces what came later. */
  const learn = (key: string, entry: Entry | undefined, revision: number): void => {
    const uid = uidOf(key)
    const before = entries.get(uid)
    if ((before?.modRevision ?? 0) > (entry?.modRevision ?? revision)) return
    if (entry === undefined) entries.delete(uid)
    else entries.set(uid, entry)
    if (before?.modRevision !== entry?.modRevision) init.onChange(uid)
  }
  const following = followPrefix(
    placementPrefix,
    {
      onListed(listed, revision) {
        known = true
        const there = new Set(listed.map(({ key }) => uidOf(key)))
        for (const uid of [...entries.keys()])
          if (!there.has(uid)) learn(placementKey(uid), undefined, revision)
        for (const entry of listed) learn(entry.key, entry, revision)
      },
      onChanged: learn,
    },
    components,
  )

  /** Writes a step and learns of what is there then, so that the next step need not wait. */
  const write = async (
    from: Entry,
    next: Placement,
    also: readonly Compare[] = [],
  ): Promise<boolean> => {
    const { succeeded, revision, current } = await writePlacement(store, from, next, also)
    const value = { ...next } as unknown as JsonValue
    const written = { ...from, value, modRevision: revision }
    learn(placementKey(next.uid), succeeded ? written : current[0], revision)
    return succeeded
  }
  const ownEntry = (uid: string): Entry | undefined => {
    const entry = entries.get(uid)
    return entry !== undefined && placementOf(entry).host === init.host ? entry : undefined
  }
  const step = async (
    uid: string,
    state: 'Refused' | 'Resting' | 'Waking' | 'Lost' | 'Gone',
    said: { request?: Amounts; reason?: string; message?: string } = {},
  ): Promise<boolean> => {
    const from = ownEntry(uid)
    if (from === undefined) return false
    const current = placementOf(from)
    const same = said.request === undefined || isDeepStrictEqual(said.request, current.request)
    if (current.state === state && same) return true
    return await write(from, moved(current, state, { at: timestamp(clock), ...said }))
  }

  return {
    isKnown: () => known,
    of(uid) {
      const entry = entries.get(uid)
      return entry === undefined ? undefined : placementOf(entry)
    },
    ours: () => [...entries.values()].map(placementOf).filter(({ host }) => host === init.host),
    async claim(uid, onHostLoss) {
      const from = ownEntry(uid)
      const state = from === undefined ? undefined : placementOf(from).state
      if (from === undefined || (state !== 'Assigned' && state !== 'Claimed')) {
        throw failure('placementChanged', { uid, host: init.host })
      }
      const leaseRevision = init.leaseRevision()
      if (leaseRevision === undefined) throw failure('hostLeaseMissing', { host: init.host })
      const also = [{ key: hostLeaseKey(init.host), createRevision: leaseRevision }]
      const next = claimed(placementOf(from), { leaseRevision, onHostLoss, at: timestamp(clock) })
      const done = await write(from, next, also)
      if (!done) throw failure('placementChanged', { uid, host: init.host })
      return next
    },
    refuse: (uid, why) => step(uid, 'Refused', why),
    rest: uid => step(uid, 'Resting'),
    wake: (uid, request) => step(uid, 'Waking', { request }),
    surrender: (uid, why) => step(uid, 'Lost', why),
    async takeOver(given, beganAfter) {
      const key = placementKey(given.uid)
      const from = entries.get(given.uid)
      const current = from === undefined ? given : placementOf(from)
      if (current.state === 'Claimed' && (current.leaseRevision ?? 0) > beganAfter) return false
      const leaseRevision = init.leaseRevision()
      if (leaseRevision === undefined) throw failure('hostLeaseMissing', { host: init.host })
      const { onHostLoss, diskEpoch, host } = given
      const epoch = Math.max(current.epoch, given.epoch)
      const kept = { ...current, epoch, host, ...(diskEpoch !== undefined && { diskEpoch }) }
      const next = claimed(kept, { leaseRevision, onHostLoss, at: timestamp(clock) })
      // Not one of the steps there are between backups, so not written as one.
      const { succeeded } = await store.transaction({
        compare: [
          { key, modRevision: from?.modRevision ?? 0 },
          { key: hostLeaseKey(init.host), createRevision: leaseRevision },
        ],
        operations: [{ put: key, value: { ...next } as unknown as JsonValue }],
      })
      const { entry, revision } = await store.get(key)
      learn(key, entry, revision)
      return succeeded
    },
    async miss(uid, why) {
      const from = ownEntry(uid)
      const replaced = from !== undefined && placementOf(from).onHostLoss === 'Replace'
      return await step(uid, replaced ? 'Lost' : 'Gone', why)
    },
    async report(era) {
      const operations = [{ put: hostReportKey(init.host), value: { era } }]
      await store.transaction({ compare: [], operations })
    },
    async remove(uid) {
      const key = placementKey(uid)
      const from = ownEntry(uid)
      if (from === undefined) return
      const { modRevision } = from
      const { succeeded, revision } = await store.transaction({
        compare: [{ key, modRevision }],
        operations: [{ delete: key }],
      })
      if (succeeded) learn(key, undefined, revision)
    },
    stop: () => following.stop(),
  }
}
