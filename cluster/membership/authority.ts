import {
  createHash,
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  X509Certificate,
} from 'node:crypto'
import type { Clock } from '../../base/clock.ts'
import type { Random } from '../../base/random.ts'
import { makeCertificate } from './certificate.ts'
import { type HostIdentity, identityUri } from './identity.ts'

/** The two authorities: one for etcd's members and clients, one for hosts and the API. */
export type AuthorityKind = 'etcd' | 'hosts'

/** An authority that can sign. */
export interface Authority {
  /** PEM. */
  certificate: string
  /** PEM (PKCS 8). Never in the store, a log, or on a host that is no voter. */
  key: string
}

/** Both authorities of one generation; a rotation makes the next. */
export interface AuthorityPair {
  generation: number
  etcd: Authority
  hosts: Authority
}

/** What making and signing need. */
export interface AuthorityComponents {
  clock: Clock
  random: Random
}

const dayMs = 24 * 3600 * 1000
/** How long an authority lives. */
const authorityLifeMs = 3652 * dayMs
/** How long the certificate of a host lives: so long does a stolen key work on the wire. */
export const certificateLifeMs = dayMs
/** Certificates begin so long ago, for clocks that are behind. */
export const backdatedMs = 5 * 60_000

/** Makes both authorities of a generation. */
export function createAuthorityPair(
  { fleetId, generation }: { fleetId: string; generation: number },
  components: AuthorityComponents,
): AuthorityPair {
  const make = (kind: AuthorityKind): Authority => {
    const { privateKey, publicKey } = newKeyPair()
    const nowMs = components.clock.wallMs()
    const name = `macfleet ${fleetId} ${kind} ${generation}`
    const content = {
      subject: name,
      issuer: name,
      publicKey,
      notBeforeMs: nowMs - backdatedMs,
      notAfterMs: nowMs + authorityLifeMs,
      authority: true,
    }
    return {
      certificate: makeCertificate(content, privateKey, components),
      key: privateKeyText(privateKey),
    }
  }
  return { generation, etcd: make('etcd'), hosts: make('hosts') }
}

/** A key for TLS. */
export function newKeyPair(): { privateKey: KeyObject; publicKey: KeyObject } {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' })
}

/** PEM of a private key (PKCS 8). */
export function privateKeyText(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }).toString()
}

/** What a host gets a certificate for. */
export interface CertificateSubject {
  identity: HostIdentity
  /** The host's IP address. */
  address: string
  publicKey: KeyObject
}

/** Signs a host's certificate. @returns PEM */
export function issueCertificate(
  kind: AuthorityKind,
  authority: Authority,
  { identity, address, publicKey }: CertificateSubject,
  components: AuthorityComponents,
): string {
  const nowMs = components.clock.wallMs()
  const loopback = kind === 'etcd' && address !== '127.0.0.1' ? ['127.0.0.1'] : []
  const content = {
    subject: identity.name.slice(0, 64),
    issuer: commonNameOf(authority.certificate),
    publicKey,
    notBeforeMs: nowMs - backdatedMs,
    notAfterMs: nowMs + certificateLifeMs,
    authority: false,
    uris: [identityUri(identity)],
    names: [identity.name],
    addresses: [address, ...loopback],
  }
  return makeCertificate(content, createPrivateKey(authority.key), components)
}

function commonNameOf(certificate: string): string {
  return new X509Certificate(certificate).subject.replace(/^CN=/, '')
}

/** What a join token carries to know an authority by: SHA-256 of the certificate, base64url. */
export function fingerprintOf(certificate: string | X509Certificate): string {
  const { raw } = typeof certificate === 'string' ? new X509Certificate(certificate) : certificate
  return createHash('sha256').update(raw).digest('base64url')
}
