import type { X509Certificate } from 'node:crypto'
import type { TLSSocket } from 'node:tls'
import type { FastifyRequest } from 'fastify'
import type { Clock } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { Member } from '../../cluster/fleet/member.ts'
import type { AuthoritiesRecord } from '../../cluster/membership/authorities.ts'
import { checkCertificate, type HostIdentity } from '../../cluster/membership/identity.ts'
import type { MemberList } from '../../cluster/membership/members.ts'

/**
 * The member that makes a request, looked up anew for each one.
 * @throws certificateRefused, notMember
 */
export type RequireMember = (request: FastifyRequest) => Member

/** What a guard needs. */
export interface GuardComponents {
  clock: Clock
  members: MemberList
  fleetId: string
  /** The authorities that are trusted now. */
  authorities(): AuthoritiesRecord
}

/** Looks at who is at the other end of a connection. */
export interface Guard {
  requireMember: RequireMember
  /** The same question for a connection. @throws certificateRefused, notMember */
  requireMemberOf(socket: TLSSocket): Member
}

interface Seen {
  certificate: X509Certificate
  identity: HostIdentity
  /** For which authorities it was found good. */
  authorities: AuthoritiesRecord
}

/**
 * Makes a guard. TLS has shown that the other end holds the key of its certificate; everything else
 * is asked with every request, so that a removed member, an expired certificate and a dropped
 * authority end what is open too. Only the signature is remembered.
 */
export function createGuard(components: GuardComponents): Guard {
  const { clock, members, fleetId } = components
  const seen = new WeakMap<TLSSocket, Seen>()
  const identify = (socket: TLSSocket): HostIdentity => {
    const authorities = components.authorities()
    const nowMs = clock.wallMs()
    const before = seen.get(socket)
    if (before?.authorities === authorities) {
      if (before.certificate.validToDate.getTime() >= nowMs) return before.identity
    }
    const certificate = before?.certificate ?? socket.getPeerX509Certificate?.()
    if (certificate === undefined) {
      throw failure('certificateRefused', { detail: 'none was shown' })
    }
    const trusted = authorities.trusted.map(each => each.hosts)
    const identity = checkCertificate(certificate, { fleetId, authorities: trusted, nowMs })
    seen.set(socket, { certificate, identity, authorities })
    return identity
  }
  const requireMemberOf = (socket: TLSSocket): Member => members.check(identify(socket))
  return {
    requireMember: request => requireMemberOf(request.raw.socket as TLSSocket),
    requireMemberOf,
  }
}
