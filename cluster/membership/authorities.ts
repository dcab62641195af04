import { type Clock, timestamp } from '../../base/clock.ts'
import { assert, failure } from '../../base/errors.ts'
import type { JsonValue } from '../../base/json.ts'
import { authoritiesKey, hostTrustKey, hostTrustPrefix } from '../fleet/keys.ts'
import type { Compare, Entry, Store } from '../store/store.ts'
import type { AuthorityPair } from './authority.ts'
import { listMembers } from './members.ts'

/** The certificates of one generation's authorities, PEM. */
export interface AuthorityCertificates {
  generation: number
  etcd: string
  hosts: string
  /** RFC 3339. */
  createdAt: string
}

/**
 * Which authorities the fleet trusts (`fleet/authorities`). A rotation goes through three states:
 * `Trusting`: the new one is trusted beside the old one, which signs; `Reissuing`: the new one
 * signs; then the old one is dropped, and it is `Settled` again. Their keys are never in the store.
 */
export interface AuthoritiesRecord {
  /** One, or two while they are changed: the older first. */
  trusted: readonly AuthorityCertificates[]
  /** The generation that signs. */
  signing: number
}

/** What a host has done of it (`fleet/trust/NAME`); written by the host itself. */
export interface HostTrust {
  hostId: string
  /** The generations that it trusts, everything on it restarted that had to be. */
  trusts: readonly number[]
  /** The generation that signed its certificates. */
  certificates: number
  /** The generations by which it can sign: it has the keys. */
  signs: readonly number[]
}

/** How far a change of authorities is. */
export interface RotationState {
  state: 'Settled' | 'Trusting' | 'Reissuing'
  /** The hosts that it waits for. */
  waitingFor: string[]
}

/** The record at the beginning of a fleet. */
export function firstAuthorities(pair: AuthorityPair, clock: Clock): AuthoritiesRecord {
  return { trusted: [certificatesOf(pair, clock)], signing: pair.generation }
}

function certificatesOf(pair: AuthorityPair, clock: Clock): AuthorityCertificates {
  const { generation, etcd, hosts } = pair
  return {
    generation,
    etcd: etcd.certificate,
    hosts: hosts.certificate,
    createdAt: timestamp(clock),
  }
}

/** The record in the store. Sound because only we write it. */
export function authoritiesOf(entry: Entry): AuthoritiesRecord {
  return entry.value as unknown as AuthoritiesRecord
}

/** Reads which authorities the fleet trusts. Throws `unavailable` when the store has no answer. */
export async function readAuthorities(
  store: Store,
): Promise<{ record: AuthoritiesRecord; compare: Compare }> {
  const { entry } = await store.get(authoritiesKey)
  if (entry === undefined) {
    const advice = 'This host is about to join or to leave; try again'
    throw failure('unavailable', { what: 'the fleet', detail: 'it has no record', advice })
  }
  return {
    record: authoritiesOf(entry),
    compare: { key: entry.key, modRevision: entry.modRevision },
  }
}

/** The bundle of one kind: all that are trusted, PEM. */
export function bundleOf(record: AuthoritiesRecord, kind: 'etcd' | 'hosts'): string {
  return record.trusted.map(each => each[kind]).join('')
}

/** Which certificates of a record belong to a generation. */
export function certificatesIn(
  record: AuthoritiesRecord,
  generation: number,
): AuthorityCertificates | undefined {
  return record.trusted.find(each => each.generation === generation)
}

/**
 * Begins to change the authorities. The caller has the new pair's keys on disk already: what is in
 * the store must never be without somebody who can sign.
 * @throws rotationUnderWay; conflict when another host was quicker
 */
export async function beginRotation(
  store: Store,
  pair: AuthorityPair,
  clock: Clock,
): Promise<void> {
  const { record, compare } = await readAuthorities(store)
  await refuseSecondRotation(store)
  assert(pair.generation === nextGeneration(record), 'generations follow each other')
  const next: AuthoritiesRecord = {
    ...record,
    trusted: [...record.trusted, certificatesOf(pair, clock)],
  }
  const written = await store.transaction({
    compare: [compare],
    operations: [{ put: authoritiesKey, value: { ...next } as unknown as JsonValue }],
  })
  if (!written.succeeded) throw failure('conflict', { resource: 'fleet', name: 'authorities' })
}

/** The generation that a rotation would make. */
export function nextGeneration({ trusted }: AuthoritiesRecord): number {
  return Math.max(...trusted.map(each => each.generation)) + 1
}

/** @throws rotationUnderWay */
export async function refuseSecondRotation(store: Store): Promise<void> {
  const { state, waitingFor } = await rotationState(store)
  if (state === 'Settled') return
  const hosts = waitingFor.slice(0, 10).join(', ')
  throw failure('rotationUnderWay', { hosts: hosts === '' ? 'its next step' : hosts })
}

/** How far it is, read from the store. */
export async function rotationState(store: Store): Promise<RotationState> {
  const { record } = await readAuthorities(store)
  return stateOf(record, await trustByHost(store))
}

/** Which hosts say that they can sign by a generation. */
export function signersIn(
  trust: ReadonlyMap<string, HostTrust | undefined>,
  generation: number,
): string[] {
  return [...trust].filter(([, each]) => each?.signs.includes(generation)).map(([name]) => name)
}

/** What every approved member has done; undefined for one that has said nothing. */
export async function trustByHost(store: Store): Promise<Map<string, HostTrust | undefined>> {
  const members = await listMembers(store)
  const { entries } = await store.list(hostTrustPrefix)
  const said = new Map(
    entries.map(({ key, value }) => [
      key.slice(hostTrustPrefix.length),
      value as unknown as HostTrust,
    ]),
  )
  return new Map(
    members
      .filter(({ state }) => state === 'Approved')
      .map(({ name, hostId }) => {
        const trust = said.get(name)
        return [name, trust?.hostId === hostId ? trust : undefined]
      }),
  )
}

function stateOf(
  record: AuthoritiesRecord,
  trust: ReadonlyMap<string, HostTrust | undefined>,
): RotationState {
  const newest = Math.max(...record.trusted.map(each => each.generation))
  if (record.trusted.length === 1) return { state: 'Settled', waitingFor: [] }
  const reissuing = record.signing === newest
  const done = (each: HostTrust | undefined): boolean =>
    each !== undefined &&
    (reissuing
      ? each.certificates === newest
      : each.trusts.includes(newest) &&
        // Who signs today must be able to sign tomorrow, else a renewal finds nobody.
        (each.signs.length === 0 || each.signs.includes(newest)))
  return {
    state: reissuing ? 'Reissuing' : 'Trusting',
    waitingFor: [...trust].filter(([, each]) => !done(each)).map(([name]) => name),
  }
}

/**
 * Takes a rotation one step on when every host has done its part. Any host may call it at any time,
 * several at once: each step is a transaction on the record. A host that joins meanwhile is signed
 * in a transaction on the same record (`admit`), so it never has certificates of a dropped one.
 */
export async function advanceRotation(store: Store): Promise<RotationState> {
  const { record, compare } = await readAuthorities(store)
  const trust = await trustByHost(store)
  const found = stateOf(record, trust)
  if (found.state === 'Settled' || found.waitingFor.length > 0 || trust.size === 0) return found
  const newest = Math.max(...record.trusted.map(each => each.generation))
  if (found.state === 'Trusting' && signersIn(trust, newest).length === 0) return found
  const next: AuthoritiesRecord =
    found.state === 'Trusting'
      ? { ...record, signing: newest }
      : { trusted: record.trusted.filter(each => each.generation === newest), signing: newest }
  await store.transaction({
    compare: [compare],
    operations: [{ put: authoritiesKey, value: { ...next } as unknown as JsonValue }],
  })
  return rotationState(store)
}

/**
 * Says what this host has done; written only when it changed, and only while it is a member.
 * @param member the entry of this host's own record
 */
export async function acknowledgeTrust(
  store: Store,
  member: Entry,
  name: string,
  trust: HostTrust,
): Promise<void> {
  const key = hostTrustKey(name)
  const { entry } = await store.get(key)
  if (entry !== undefined && JSON.stringify(entry.value) === JSON.stringify(trust)) return
  await store.transaction({
    compare: [{ key: member.key, createRevision: member.createRevision }],
    operations: [{ put: key, value: { ...trust } as unknown as JsonValue }],
  })
}
