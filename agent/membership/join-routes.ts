import type { FastifyRequest } from 'fastify'
import type { Clock } from '../../base/clock.ts'
import { failure, MacfleetError } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import type { Admission } from '../../cluster/membership/admission.ts'
import { createAttempts } from '../../cluster/membership/attempts.ts'
import type { MemberList } from '../../cluster/membership/members.ts'
import { createNonces } from '../../cluster/membership/nonces.ts'
import {
  type JoinRequest,
  joinRequestSchema,
  type ProvenRequest,
  type RenewRequest,
  readRequest,
  renewRequestSchema,
} from '../../cluster/membership/request.ts'
import { checkClocks } from './clocks.ts'
import type { FleetFolder } from './fleet-folder.ts'
import { askMember } from './member-client.ts'
import type { HelloAnswer } from './peer-client.ts'
import type { PeerRoutes } from './server.ts'

/** What the routes for joining and renewing need. */
export interface JoinRoutesComponents {
  folder: FleetFolder
  admission: Admission
  members: MemberList
  version: string
  clock: Clock
  random: Random
  log: Log
  limits: Pick<Limits, 'joinAttempts' | 'joinSources' | 'joinRequestsAtOnce' | 'memberAnswerBytes'>
}

type Kind = 'join' | 'renew'
type Proven = ProvenRequest<JoinRequest> | ProvenRequest<RenewRequest>

/**
 * Anybody may ask who is there (`/v1/hello`), to be let in (`/v1/join`) and, with the key of a
 * member, for new certificates (`/v1/renew`). A host that can't sign passes a request whose proofs
 * it has checked on to one that can (`/v1/signing/...`, members only).
 */
export function joinRoutes(components: JoinRoutesComponents): PeerRoutes {
  const { folder, version, clock, limits } = components
  const nonces = createNonces(components)
  const attempts = createAttempts(limits, clock)
  let working = 0

  /** Counts what fails by where it comes from, and bounds what is done at once. */
  const bounded = async <T>(request: FastifyRequest, work: () => Promise<T>): Promise<T> => {
    attempts.check(request.ip)
    if (working >= limits.joinRequestsAtOnce) {
      throw failure('tooMany', { limit: limits.joinRequestsAtOnce, what: 'requests to join' })
    }
    working++
    try {
      return await work()
    } catch (error) {
      if (error instanceof MacfleetError && error.httpStatus < 500) attempts.failed(request.ip)
      throw forStrangers(error, components.log)
    } finally {
      working--
    }
  }

  const answer = async (kind: Kind, request: FastifyRequest): Promise<unknown> => {
    const proven = read(kind, request.body, folder.identity.fleetId)
    if (!nonces.isFresh(proven.request.nonce)) {
      throw failure('joinRefused', { detail: 'it is not an answer to what this host said' })
    }
    const { host, port } = ownAddress(request)
    checkClocks(proven.request.atMs, clock.wallMs(), { host, peerPort: port })
    const { admission } = components
    if (admission.canSign()) return decide(admission, kind, proven)
    if (kind === 'join') await admission.checkJoin(proven as ProvenRequest<JoinRequest>)
    return passOn(kind, request.body, components)
  }

  return (app, requireMember) => {
    app.get('/v1/hello', async (): Promise<HelloAnswer> => {
      const { fleetId, era } = folder.known().fleet
      return { fleetId, era, nowMs: clock.wallMs(), nonce: nonces.issue(), version }
    })
    for (const kind of ['join', 'renew'] as const) {
      app.post(`/v1/${kind}`, request => bounded(request, () => answer(kind, request)))
      app.post(`/v1/signing/${kind}`, async request => {
        // The other has checked the nonce, which is its own; the proofs are checked again.
        requireMember(request)
        const proven = read(kind, request.body, folder.identity.fleetId)
        return decide(components.admission, kind, proven)
      })
    }
  }
}

/** Why this host can not answer names others of the fleet, which nobody without a token learns. */
function forStrangers(error: unknown, log: Log): unknown {
  if (!(error instanceof MacfleetError)) return error
  const { code } = error
  if (code !== 'noSigner' && code !== 'unavailable' && code !== 'fleetUnreachable') return error
  log.debug({ code, error: error.message }, 'a host that asks to be let in can not be answered')
  return failure('noSigner', { detail: 'its log says why' })
}

function read(kind: Kind, body: unknown, fleetId: string): Proven {
  return kind === 'join'
    ? readRequest<JoinRequest>(joinRequestSchema, body, fleetId)
    : readRequest<RenewRequest>(renewRequestSchema, body, fleetId)
}

function decide(admission: Admission, kind: Kind, proven: Proven): Promise<unknown> {
  return kind === 'join'
    ? admission.join(proven as ProvenRequest<JoinRequest>)
    : admission.renew(proven as ProvenRequest<RenewRequest>)
}

function ownAddress({ raw }: FastifyRequest): { host: string; port: number } {
  return { host: raw.socket.localAddress ?? '', port: raw.socket.localPort ?? 0 }
}

/** @throws noSigner, or what the host that can sign answered */
async function passOn(
  kind: Kind,
  body: unknown,
  components: JoinRoutesComponents,
): Promise<unknown> {
  const { folder, log } = components
  let detail = 'none is known'
  for (const name of folder.known().signers) {
    if (name === folder.identity.name) continue
    try {
      return await askMember(name, { path: `/v1/signing/${kind}`, body }, components)
    } catch (error) {
      if (isVerdict(error)) throw error
      detail = messageOf(error)
      log.warn({ host: name, error: detail }, 'a host that can sign was not reached')
    }
  }
  throw failure('noSigner', { detail })
}

/** Whether it is about the request, so that another host would say the same. */
function isVerdict(error: unknown): boolean {
  if (!(error instanceof MacfleetError)) return false
  return error.httpStatus < 500 && error.code !== 'certificateRefused'
}
