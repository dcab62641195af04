import { X509Certificate } from 'node:crypto'
import { type BackoffInit, backoffMs } from '../../base/backoff.ts'
import { type Clock, sleep } from '../../base/clock.ts'
import { failure, isFailure, MacfleetError } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import { type Random, randomInteger } from '../../base/random.ts'
import type { Member } from '../../cluster/fleet/member.ts'
import type { Admitted } from '../../cluster/membership/admission.ts'
import {
  type AuthorityKind,
  issueCertificate,
  newKeyPair,
  privateKeyText,
} from '../../cluster/membership/authority.ts'
import { identityOf, isIssuedBy } from '../../cluster/membership/identity.ts'
import { type RenewRequest, signRequest } from '../../cluster/membership/request.ts'
import { readAdmitted } from './admitted.ts'
import { checkClocks } from './clocks.ts'
import type { FleetFolder } from './fleet-folder.ts'
import { askPeer, greet } from './peer-client.ts'

/** What renewing needs. */
export interface RenewalComponents {
  folder: FleetFolder
  /** The newest address of this host. */
  address(): Member['address']
  version: string
  clock: Clock
  random: Random
  log: Log
  limits: Pick<Limits, 'memberAnswerBytes'>
}

const backoff: BackoffInit = { firstMs: 1_000, mostMs: 60_000 }
/** Wall time is looked at so often: timers do not run while a machine sleeps. */
const checkMs = 30_000

/** How much of its certificates' life is left, from 1 to 0; below 0 they have ended. */
export function lifeLeft(folder: FleetFolder, clock: Clock): number {
  const nowMs = clock.wallMs()
  const left = (['etcd', 'hosts'] as const).map(kind => {
    const { validFromDate, validToDate } = folder.certificate(kind)
    const lifeMs = validToDate.getTime() - validFromDate.getTime()
    return (validToDate.getTime() - nowMs) / lifeMs
  })
  return Math.min(...left)
}

/**
 * Gives this host new certificates for new keys: by its own hand when it can sign, else from a host
 * that can. What proves it to others is its peer key, so it works too when the old certificates
 * have ended while it was switched off.
 * @throws notMember, clockSkew, noSigner, fleetUnreachable
 */
export async function renewCertificates(
  components: RenewalComponents,
  signal?: AbortSignal,
): Promise<void> {
  const { folder } = components
  const keys = { etcd: newKeyPair(), hosts: newKeyPair() }
  const { signing } = folder.known().authorities
  const pair = folder.authorityPairs().find(each => each.generation === signing)
  const certificates =
    pair === undefined
      ? await askForCertificates(keys, components, signal)
      : signOwn(pair, keys, components)
  await folder.saveCertificates({
    etcd: { key: privateKeyText(keys.etcd.privateKey), certificate: certificates.etcd },
    hosts: { key: privateKeyText(keys.hosts.privateKey), certificate: certificates.hosts },
  })
}

type Keys = Record<AuthorityKind, ReturnType<typeof newKeyPair>>

function signOwn(
  pair: ReturnType<FleetFolder['authorityPairs']>[number],
  keys: Keys,
  components: RenewalComponents,
): Record<AuthorityKind, string> {
  const { identity } = components.folder
  const address = components.address().host
  const sign = (kind: AuthorityKind) =>
    issueCertificate(
      kind,
      pair[kind],
      { identity, address, publicKey: keys[kind].publicKey },
      components,
    )
  return { etcd: sign('etcd'), hosts: sign('hosts') }
}

/** First those that can sign, then any: they pass it on. */
function whomToAsk({ folder }: RenewalComponents): Member[] {
  const { members, signers } = folder.known()
  const others = members.filter(
    ({ name, state }) => state === 'Approved' && name !== folder.identity.name,
  )
  const [able, rest] = [true, false].map(wanted =>
    others.filter(({ name }) => signers.includes(name) === wanted),
  )
  return [...(able ?? []), ...(rest ?? [])]
}

async function askForCertificates(
  keys: Keys,
  components: RenewalComponents,
  signal: AbortSignal | undefined,
): Promise<Record<AuthorityKind, string>> {
  let last: unknown
  for (const asked of whomToAsk(components)) {
    try {
      const admitted = await askOne(asked, keys, components, signal)
      checkOwn(admitted, components.folder)
      const { fleet, members, signers, etcdEndpoints, member } = admitted
      const known = { fleet, member, members, etcdEndpoints }
      // Without the store a host that signs knows of no others; what we know is better then.
      const able = signers.length > 0 ? { signers } : {}
      await components.folder.remember({ ...known, ...able })
      return admitted.certificates
    } catch (error) {
      signal?.throwIfAborted()
      last = error
      if (isFailure(error, 'notMember') || isFailure(error, 'clockSkew')) throw error
    }
  }
  if (last instanceof MacfleetError) throw last
  throw failure('noSigner', { detail: last === undefined ? 'none is known' : messageOf(last) })
}

async function askOne(
  { name: expected, address }: Member,
  keys: Keys,
  { folder, clock, limits, version, address: own }: RenewalComponents,
  signal: AbortSignal | undefined,
): Promise<Admitted> {
  const bounds = signal === undefined ? {} : { signal }
  const { hello, certificate } = await greet({ address, ...bounds })
  const { fleetId, name, hostId } = folder.identity
  const trusted = folder.known().authorities.trusted.map(each => new X509Certificate(each.hosts))
  // The host itself: one that was removed has a certificate of the fleet for a day, and would tell
  // us of members and of an etcd of its own.
  const check = (shown: X509Certificate) => {
    const said = identityOf(shown)
    if (said?.fleetId === fleetId && said.name === expected) return
    throw failure('certificateRefused', { detail: `another host than ${expected} answers there` })
  }
  if (!trusted.some(authority => isIssuedBy(certificate, authority))) {
    throw failure('certificateRefused', { detail: 'another fleet answers there' })
  }
  check(certificate)
  if (hello.era < folder.known().fleet.era) {
    const detail = 'the host that answers there has not seen that the fleet was restored'
    throw failure('certificateRefused', { detail })
  }
  checkClocks(clock.wallMs(), hello.nowMs, address)
  const content = {
    version,
    atMs: clock.wallMs(),
    nonce: hello.nonce,
    name,
    machineId: folder.machineId,
    address: own(),
    hostId,
  }
  const body = signRequest<RenewRequest>(fleetId, content, { peer: folder.peer, ...keys })
  const { ca } = folder.tls('hosts')
  const asked = { address, path: '/v1/renew', body, ca, ...bounds }
  const admitted = readAdmitted(await askPeer({ ...asked, check }, { limits }))
  if (admitted === undefined) {
    throw failure('fleetUnreachable', { detail: `${address.host} gave no certificates` })
  }
  return admitted
}

/** @throws certificateRefused when what came is not for this host */
function checkOwn(admitted: Admitted, folder: FleetFolder): void {
  const { fleetId, name, peerId, hostId } = folder.identity
  const { trusted } = folder.known().authorities
  for (const kind of ['etcd', 'hosts'] as const) {
    const certificate = new X509Certificate(admitted.certificates[kind])
    const said = identityOf(certificate)
    const ours =
      said?.fleetId === fleetId &&
      said.name === name &&
      said.peerId === peerId &&
      said.hostId === hostId
    const signed = trusted.some(each => isIssuedBy(certificate, new X509Certificate(each[kind])))
    if (!ours || !signed) {
      throw failure('certificateRefused', { detail: 'the new one is not for this host' })
    }
  }
}

/**
 * Waits until this host has certificates that are valid: at once unless it was off for long.
 * @throws notMember, clockSkew, or the signal's reason
 */
export async function ensureCertificates(
  components: RenewalComponents,
  signal: AbortSignal,
): Promise<void> {
  const { folder, clock, log } = components
  for (let failures = 1; lifeLeft(folder, clock) <= 0 || isEarly(folder, clock); failures++) {
    try {
      await renewCertificates(components, signal)
    } catch (error) {
      signal.throwIfAborted()
      if (isFailure(error, 'notMember')) throw error
      log.warn({ error: messageOf(error) }, 'the certificates have ended; waiting for new ones')
      await sleep(clock, backoffMs(backoff, failures), signal)
    }
  }
}

function isEarly(folder: FleetFolder, clock: Clock): boolean {
  return folder.certificate('hosts').validFromDate.getTime() > clock.wallMs()
}

/** Keeps certificates fresh until it is stopped. */
export interface Renewal {
  /** Renews now, whatever is left. */
  now(): Promise<void>
  stop(): Promise<void>
}

/**
 * Renews at two thirds of the certificates' life, a little earlier or later on each host, and tries
 * again with growing waits; warns when less than a quarter is left.
 * @param onRenewed called after each renewal, before `now` resolves
 */
export function startRenewal(
  components: RenewalComponents,
  onRenewed: () => Promise<void>,
): Renewal {
  const { folder, clock, random, log } = components
  const stopping = new AbortController()
  const { signal } = stopping
  let working: Promise<void> | undefined
  const now = (): Promise<void> => {
    working ??= renewCertificates(components, signal)
      .then(onRenewed)
      .finally(() => {
        working = undefined
      })
    return working
  }
  const run = async (): Promise<void> => {
    let failures = 0
    let threshold = thresholdOf(random)
    while (!signal.aborted) {
      if (lifeLeft(folder, clock) <= threshold) {
        try {
          await now()
          failures = 0
          threshold = thresholdOf(random)
          const { validTo } = folder.certificate('hosts')
          log.info({ until: validTo }, 'the certificates of this host were renewed')
        } catch (error) {
          if (signal.aborted) return
          failures++
          const left = lifeLeft(folder, clock)
          const say = left < 0.25 ? log.error : log.warn
          const fields = { failures, lifeLeft: left.toFixed(2), error: messageOf(error) }
          say.call(log, fields, 'the certificates of this host could not be renewed')
        }
      }
      await sleep(clock, failures > 0 ? backoffMs(backoff, failures) : checkMs, signal)
    }
  }
  const running = run().catch(() => {})
  return {
    now,
    async stop() {
      stopping.abort()
      await running
      await working?.catch(() => {})
    },
  }
}

/** The part of its life at which a certificate is renewed: a third left, give or take 3 %. */
function thresholdOf(random: Random): number {
  return 1 / 3 + (randomInteger(random, 1_000) / 1_000 - 0.5) * 0.06
}
