import type { X509Certificate } from 'node:crypto'
import type { Clock } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { Member } from '../../cluster/fleet/member.ts'
import { checkCertificate } from '../../cluster/membership/identity.ts'
import type { MemberList } from '../../cluster/membership/members.ts'
import type { FleetFolder } from './fleet-folder.ts'
import { askPeer } from './peer-client.ts'

/** What asking members needs. */
export interface MemberClientComponents {
  folder: FleetFolder
  members: MemberList
  clock: Clock
  limits: Pick<Limits, 'memberAnswerBytes'>
}

/** What a member is asked. */
export interface MemberRequest {
  path: string
  /** JSON; a request without it is a GET. */
  body?: unknown
  timeoutMs?: number
  signal?: AbortSignal
}

/**
 * Asks a member by its name, each side showing its certificate. The one that answers must be that
 * member, as the list has it now.
 * @throws notMember, certificateRefused, fleetUnreachable, or what the other host answered
 */
export async function askMember(
  name: string,
  request: MemberRequest,
  components: MemberClientComponents,
): Promise<unknown> {
  const { folder, members } = components
  const member = members.get(name)
  if (member === undefined) throw failure('notMember', { name, detail: 'it was removed' })
  const { key, cert, ca } = folder.tls('hosts')
  return askPeer(
    {
      ...request,
      address: member.address,
      ca,
      own: { key, cert },
      check: certificate => checkIsMember(certificate, member, components),
    },
    components,
  )
}

/** @throws notMember, certificateRefused unless a certificate is that of a member */
function checkIsMember(
  certificate: X509Certificate,
  expected: Pick<Member, 'name'>,
  { folder, members, clock }: Pick<MemberClientComponents, 'folder' | 'members' | 'clock'>,
): void {
  const identity = checkCertificate(certificate, {
    fleetId: folder.identity.fleetId,
    authorities: folder.known().authorities.trusted.map(each => each.hosts),
    nowMs: clock.wallMs(),
  })
  members.check(identity)
  if (identity.name !== expected.name) {
    throw failure('certificateRefused', { detail: `it is that of ${identity.name}` })
  }
}
