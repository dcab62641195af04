import { type ErrorCode, failure, MacfleetError } from '../../base/errors.ts'
import { type Log, messageOf } from '../../base/log.ts'

/** meta/v1 Status: how Kubernetes answers when there is no object to answer with. */
export interface Status {
  kind: 'Status'
  apiVersion: 'v1'
  metadata: Record<string, never>
  status: 'Success' | 'Failure'
  message?: string
  reason?: string
  details?: StatusDetails
  code: number
}

/** What a Status is about. */
export interface StatusDetails {
  name?: string
  group?: string
  kind?: string
  uid?: string
  causes?: { reason: string; message: string; field?: string }[]
  retryAfterSeconds?: number
}

/** When a client that was turned away for the moment should come again. */
const retryAfterSeconds = 1

/** The Status of an error of the table. */
export function failureStatus(error: MacfleetError): Status {
  const { name, group, kind, uid } = error.object
  const mayRetry = [429, 503, 504].includes(error.httpStatus)
  const details: StatusDetails = {
    ...(name === undefined ? {} : { name }),
    ...(group === undefined ? {} : { group }),
    ...(kind === undefined ? {} : { kind }),
    ...(uid === undefined ? {} : { uid }),
    ...(error.causes.length === 0 ? {} : { causes: error.causes.map(causeOf) }),
    ...(mayRetry ? { retryAfterSeconds } : {}),
  }
  return {
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Failure',
    message: error.message,
    reason: error.reason,
    ...(Object.keys(details).length === 0 ? {} : { details }),
    code: error.httpStatus,
  }
}

function causeOf(cause: { field: string; message: string }) {
  const reason = cause.message === 'is required' ? 'FieldValueRequired' : 'FieldValueInvalid'
  return { reason, message: cause.message, field: cause.field }
}

/** The Status of something that worked and left nothing to show. */
export function successStatus(details: StatusDetails): Status {
  const status = 'Success'
  return { kind: 'Status', apiVersion: 'v1', metadata: {}, status, details, code: 200 }
}

/** What fastify's own errors mean to a client, by their HTTP status. */
const codesOfFastify: Record<number, ErrorCode> = { 413: 'tooLarge', 415: 'unsupportedMediaType' }

/**
 * Whatever was thrown as an error of the table. What nobody foresaw is logged with its stack and
 * told to the client without it.
 */
export function asFailure(thrown: unknown, log: Log, limitBytes: number): MacfleetError {
  if (thrown instanceof MacfleetError) {
    if (thrown.httpStatus >= 500) log.warn({ code: thrown.code, error: thrown.message }, 'failed')
    return thrown
  }
  const httpStatus = statusCodeOf(thrown)
  if (httpStatus >= 400 && httpStatus < 500) {
    const code = codesOfFastify[httpStatus]
    if (code === 'tooLarge') return failure('tooLarge', { limitBytes })
    if (code === 'unsupportedMediaType') return unsupportedType('an unreadable name')
    return failure('badRequest', { detail: messageOf(thrown).slice(0, 200) })
  }
  const stack = thrown instanceof Error ? thrown.stack : String(thrown)
  log.error({ stack }, 'a request failed in a way that nobody foresaw')
  return failure('internal', { detail: 'the request could not be served' }, { cause: thrown })
}

/** The error for a body of a type that is not read here. */
export function unsupportedType(type: string, supported = bodyTypes.join(' or ')): MacfleetError {
  return failure('unsupportedMediaType', { type: type.slice(0, 100), supported })
}

/** The types of body that hold one object. */
export const bodyTypes = ['application/json', 'application/yaml'] as const

function statusCodeOf(thrown: unknown): number {
  if (typeof thrown !== 'object' || thrown === null || !('statusCode' in thrown)) return 500
  return typeof thrown.statusCode === 'number' ? thrown.statusCode : 500
}
