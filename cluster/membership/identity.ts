import { X509Certificate } from 'node:crypto'
import { failure } from '../../base/errors.ts'

/** Who a host is, as its certificate says it. */
export interface HostIdentity {
  fleetId: string
  name: string
  /** libp2p's name for the key that the host proved to hold. */
  peerId: string
  /** A UUID, new with every join: a certificate from before a removal names another one. */
  hostId: string
}

/** What a host's name may be, in certificates, keys and paths. */
export const hostNamePattern = '^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$'

/** The name in a certificate that says all of it. */
export function identityUri({ fleetId, name, peerId, hostId }: HostIdentity): string {
  return `macfleet://${fleetId}/host/${name}?peer=${peerId}&id=${hostId}`
}

const uuid = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}'
const uriPattern = new RegExp(
  `^URI:macfleet://(${uuid})/host/([a-z0-9][-a-z0-9.]*)[?]peer=([A-Za-z0-9]+)&id=(${uuid})$`,
)

/** Who a certificate names; undefined when it names nobody, or more than one. */
export function identityOf(certificate: X509Certificate): HostIdentity | undefined {
  // OpenSSL's text; a name with a comma in it is quoted by Node, so that it never looks like two.
  const names = (certificate.subjectAltName ?? '').split(', ').filter(name => /^URI:/.test(name))
  const [, fleetId, name, peerId, hostId] = uriPattern.exec(names[0] ?? '') ?? []
  if (names.length !== 1 || fleetId === undefined || name === undefined) return undefined
  if (peerId === undefined || hostId === undefined) return undefined
  return { fleetId, name, peerId, hostId }
}

/** What a certificate is checked against. */
export interface Trust {
  fleetId: string
  /** The certificates of the authorities, PEM, each alone. */
  authorities: readonly string[]
  /** Milliseconds since the epoch. */
  nowMs: number
}

const clientAuthentication = '1.3.6.1.5.5.7.3.2'

/**
 * Who showed a certificate, after it was checked: signed by an authority that is trusted now, valid
 * now, for this fleet, for a host. Whether that host is still a member is another question.
 * @throws certificateRefused, saying why
 */
export function checkCertificate(certificate: X509Certificate, trust: Trust): HostIdentity {
  const refuse = (detail: string) => failure('certificateRefused', { detail })
  const signer = trust.authorities
    .map(pem => new X509Certificate(pem))
    .find(authority => isIssuedBy(certificate, authority))
  if (signer === undefined) throw refuse('it is signed by no authority of this fleet')
  if (certificate.ca) throw refuse('it is that of an authority, not of a host')
  if (!certificate.keyUsage?.includes(clientAuthentication)) throw refuse('it is not for hosts')
  if (certificate.validFromDate.getTime() > trust.nowMs) throw refuse('it is not valid yet')
  if (certificate.validToDate.getTime() < trust.nowMs) throw refuse('it has expired')
  const identity = identityOf(certificate)
  if (identity === undefined) throw refuse('it names no host')
  if (identity.fleetId !== trust.fleetId) throw refuse('it is of another fleet')
  return identity
}

/** Whether an authority signed a certificate. */
export function isIssuedBy(certificate: X509Certificate, authority: X509Certificate): boolean {
  return (
    authority.ca && certificate.checkIssued(authority) && certificate.verify(authority.publicKey)
  )
}
