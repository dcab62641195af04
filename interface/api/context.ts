import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Clock } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import type { Registry } from '../../base/metrics.ts'
import type { ObjectReference, Objects } from '../../cluster/objects.ts'
import type { Kind } from '../../resources/kind.ts'
import type { FleetOperations } from './fleet-operations.ts'
import type { Subresources } from './subresources.ts'

/** What is served, besides the objects. */
export interface ApiInit {
  /** Of macfleet. */
  version: string
  /**
   * What must work before the daemon is called ready: each throws, or rejects, when it does not.
   */
  readiness: Readonly<Record<string, () => Promise<unknown>>>
  subresources: Subresources
  fleet: FleetOperations
  /** RFC 3339: since when what is read may be old; undefined while it is not. */
  staleSince(): string | undefined
}

/** What the API needs. */
export interface ApiComponents {
  objects: Objects
  clock: Clock
  log: Log
  limits: Limits
  metrics: Registry
}

/** What all routes share. */
export interface ApiContext extends ApiComponents, ApiInit {
  /** Aborted when the server closes: whatever is open ends. */
  closing: AbortSignal
  /** Watches open now. */
  watches: Set<unknown>
}

/** The variable parts of a path. */
export interface PathParameters {
  namespace?: string
  name?: string
}

/** A query string; a parameter given twice is a list. */
export type Query = Record<string, string | string[] | undefined>

/** The types that fastify gives to a request of ours. */
export interface RouteTypes {
  Params: PathParameters
  Querystring: Query
}

/** A request of ours. */
export type ApiRequest = FastifyRequest<RouteTypes>

/** Serves one method of one path; what it returns is sent, unless the reply was taken over. */
export type Handler = (request: ApiRequest, reply: FastifyReply) => Promise<unknown>

/** The object that a path names. */
export function referenceOf(kind: Kind, request: ApiRequest): ObjectReference {
  const { name = '', namespace } = request.params
  return kind.namespaced ? { name, namespace: namespace ?? '' } : { name }
}

/**
 * A query parameter that may be given once; undefined when it is not there or empty.
 * @throws badRequest when it is there twice
 */
export function parameter(query: Query, name: string): string | undefined {
  const value = query[name]
  if (Array.isArray(value)) throw failure('badRequest', { detail: `${name} is there twice` })
  return value === '' ? undefined : value
}

/**
 * A query parameter that is a whole number from 0 on.
 * @throws badRequest
 */
export function integerParameter(query: Query, name: string): number | undefined {
  const text = parameter(query, name)
  if (text === undefined) return undefined
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
  if (Number.isSafeInteger(value)) return value
  throw failure('badRequest', {
    detail: `${name} must be a whole number, not ${text.slice(0, 40)}`,
  })
}

/**
 * A query parameter that is `true` or `false`, or `1` or `0`.
 * @throws badRequest
 */
export function booleanParameter(query: Query, name: string): boolean {
  const text = parameter(query, name)
  if (text === undefined || text === 'false' || text === '0') return false
  if (text === 'true' || text === '1') return true
  throw failure('badRequest', {
    detail: `${name} must be true or false, not ${text.slice(0, 40)}`,
  })
}

/**
 * Whether nothing shall be stored (Kubernetes API concepts, "Dry-run").
 * @throws badRequest for anything but All
 */
export function isDryRun(query: Query): boolean {
  const text = parameter(query, 'dryRun')
  if (text !== undefined && text !== 'All') {
    throw failure('badRequest', { detail: `dryRun must be All, not ${text.slice(0, 40)}` })
  }
  return text === 'All'
}

/** Aborted when the client leaves before its answer is complete, and when the server closes. */
export function clientSignal(context: ApiContext, reply: FastifyReply): AbortSignal {
  const leaving = new AbortController()
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) leaving.abort()
  })
  return AbortSignal.any([leaving.signal, context.closing])
}
