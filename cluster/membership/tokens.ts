import { createHash, timingSafeEqual } from 'node:crypto'
import type { Clock } from '../../base/clock.ts'
import { timestamp } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { JsonValue } from '../../base/json.ts'
import type { Limits } from '../../base/limits.ts'
import { type Random, randomSuffix } from '../../base/random.ts'
import { tokenKey, tokenPrefix } from '../fleet/keys.ts'
import type { Entry, Store } from '../store/store.ts'
import { encodeToken, type PeerAddress } from './token-text.ts'

/** A join token as the store has it (`fleet/tokens/ID`). */
export interface TokenRecord {
  id: string
  /** SHA-256 of the secret, hex. The secret has 128 random bits, so no salt is needed. */
  secretDigest: string
  /** RFC 3339. */
  createdAt: string
  expiresAt: string
  /** How often it may be used in all, and still. One that may be used once needs no approval. */
  uses: number
  usesLeft: number
  /** The rack of hosts that join with it and name none themselves. */
  rack?: string
  /** Digests of the machine ids that need no approval. */
  machineIds?: readonly string[]
  /** The fleet's era in which it was made: a restored fleet takes none from before. */
  era: number
}

/** What a new token is to be. */
export interface TokenRequest {
  /** How long it is valid, in milliseconds; a minute to 30 days. */
  ttlMs: number
  uses: number
  rack?: string
  /** Machine ids, as /etc/machine-id has them, that need no approval. */
  machineIds?: readonly string[]
  /** What the token carries, see `JoinToken`. */
  fingerprint: string
  addresses: readonly PeerAddress[]
  era: number
}

/** What tokens need. */
export interface TokenComponents {
  store: Store
  clock: Clock
  random: Random
  limits: Pick<Limits, 'joinTokens' | 'joinTokenUses' | 'joinTokenAddresses'>
}

const minuteMs = 60_000
const longestMs = 30 * 24 * 60 * minuteMs
const mostMachineIds = 1_000

/** What is kept of a machine id: a digest, so that nobody learns it from the store. */
export function machineIdDigest(machineId: string): string {
  const text = `macfleet machine ${machineId.trim().toLowerCase()}`
  return createHash('sha256').update(text).digest('hex').slice(0, 32)
}

/**
 * Makes a token. Its text is told this once and kept nowhere.
 * @throws badRequest, tooMany
 */
export async function createToken(
  request: TokenRequest,
  components: TokenComponents,
): Promise<{ text: string; record: TokenRecord }> {
  const { store, clock, random, limits } = components
  checkRequest(request, limits)
  await dropExpired(components)
  const listing = await store.list(tokenPrefix)
  if (listing.entries.length >= limits.joinTokens) {
    throw failure('tooMany', { limit: limits.joinTokens, what: 'join tokens' })
  }
  const id = randomSuffix(random, 10)
  const secret = random.bytes(16).toString('base64url')
  const { rack, machineIds = [], uses, era, fingerprint } = request
  const record: TokenRecord = {
    id,
    secretDigest: digestOf(secret),
    createdAt: timestamp(clock),
    expiresAt: new Date(clock.wallMs() + request.ttlMs).toISOString(),
    uses,
    usesLeft: uses,
    ...(rack === undefined ? {} : { rack }),
    ...(machineIds.length === 0 ? {} : { machineIds: machineIds.map(machineIdDigest) }),
    era,
  }
  const key = tokenKey(id)
  const made = await store.transaction({
    compare: [{ key, modRevision: 0 }],
    operations: [{ put: key, value: { ...record } as unknown as JsonValue }],
  })
  if (!made.succeeded) throw failure('alreadyExists', { resource: 'join token', name: id })
  const addresses = request.addresses.slice(0, limits.joinTokenAddresses)
  return { text: encodeToken({ id, secret, fingerprint, addresses }), record }
}

function checkRequest(request: TokenRequest, limits: TokenComponents['limits']): void {
  const { ttlMs, uses, machineIds = [] } = request
  const wrong = (detail: string) => failure('badRequest', { detail })
  if (!(ttlMs >= minuteMs && ttlMs <= longestMs)) {
    throw wrong('a join token is valid for a minute to 30 days')
  }
  if (!Number.isInteger(uses) || uses < 1 || uses > limits.joinTokenUses) {
    throw wrong(`a join token may be used 1 to ${limits.joinTokenUses} times`)
  }
  if (machineIds.length > mostMachineIds) throw wrong(`at most ${mostMachineIds} machine ids`)
  const odd = machineIds.find(each => !/^[0-9a-f]{32}$/i.test(each.trim()))
  if (odd !== undefined) throw wrong(`"${odd.slice(0, 64)}" is no machine id (32 hex digits)`)
}

/** Every token that is there, those that ended lately included; without anything secret. */
export async function listTokens(store: Store): Promise<Omit<TokenRecord, 'secretDigest'>[]> {
  const { entries } = await store.list(tokenPrefix)
  return entries.map(tokenOf).map(({ secretDigest: _, ...record }) => record)
}

/**
 * Ends a token at once. Hosts that joined with it stay; those that wait are not let in by this.
 * @throws notFound
 */
export async function revokeToken(store: Store, id: string): Promise<void> {
  const key = tokenKey(id)
  const { entry } = /^[a-z0-9]{1,32}$/.test(id) ? await store.get(key) : { entry: undefined }
  if (entry === undefined) throw failure('notFound', { resource: 'join token', name: id })
  await store.transaction({ compare: [], operations: [{ delete: key }] })
}

/** Tokens that nobody can use any more go a day later, so that for a while it is said why. */
async function dropExpired({ store, clock }: TokenComponents): Promise<void> {
  const oldestMs = clock.wallMs() - 24 * 60 * minuteMs
  const { entries } = await store.list(tokenPrefix)
  for (const entry of entries) {
    if (Date.parse(tokenOf(entry).expiresAt) >= oldestMs) continue
    await store.transaction({
      compare: [{ key: entry.key, modRevision: entry.modRevision }],
      operations: [{ delete: entry.key }],
    })
  }
}

/**
 * The token that somebody shows, after its secret and its era were checked.
 * @throws tokenRefused
 */
export async function findToken(
  store: Store,
  { id, secret, era }: { id: string; secret: string; era: number },
): Promise<{ entry: Entry; record: TokenRecord }> {
  const { entry } = await store.get(tokenKey(id))
  const record = entry === undefined ? undefined : tokenOf(entry)
  const expected = Buffer.from(record?.secretDigest ?? digestOf(''))
  const matches = timingSafeEqual(expected, Buffer.from(digestOf(secret)))
  if (entry === undefined || record === undefined || !matches || record.era !== era) {
    throw failure('tokenRefused', { id })
  }
  return { entry, record }
}

/** @throws tokenExpired, tokenUsedUp */
export function checkUsable(record: TokenRecord, clock: Clock): void {
  const { id, expiresAt, uses, usesLeft } = record
  if (Date.parse(expiresAt) <= clock.wallMs()) {
    throw failure('tokenExpired', { id, at: expiresAt })
  }
  if (usesLeft < 1) throw failure('tokenUsedUp', { id, uses })
}

/** Whether a host that uses the token waits for `macfleet host approve`. */
export function needsApproval(record: TokenRecord, machineId: string): boolean {
  return record.uses > 1 && !(record.machineIds ?? []).includes(machineId)
}

/** The part of a transaction that uses a token once: of two at once only one goes through. */
export function useOf({ entry, record }: { entry: Entry; record: TokenRecord }) {
  const value = { ...record, usesLeft: record.usesLeft - 1 } as unknown as JsonValue
  return {
    compare: { key: entry.key, modRevision: entry.modRevision },
    operation: { put: entry.key, value },
  }
}

/** Sound because only we write under this prefix. */
function tokenOf(entry: Entry): TokenRecord {
  return entry.value as unknown as TokenRecord
}

function digestOf(secret: string): string {
  return createHash('sha256').update(secret).digest('hex')
}
