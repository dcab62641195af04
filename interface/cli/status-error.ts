import type { ErrorCause } from '../../base/errors.ts'
import { isRecord, textOf } from './untyped.ts'

/** An error that the server answered with (Kubernetes metav1.Status). */
export class StatusError extends Error {
  readonly reason: string
  readonly httpStatus: number
  readonly causes: readonly ErrorCause[]

  constructor(reason: string, httpStatus: number, message: string, causes: readonly ErrorCause[]) {
    super(message)
    this.name = 'StatusError'
    this.reason = reason
    this.httpStatus = httpStatus
    this.causes = causes
  }
}

/** Causes of one answer that are shown. */
const causesShown = 20

/**
 * The error behind an answer whose HTTP status says failure. An answer that is no Status (a proxy's
 * page, say) is quoted in part.
 */
export function statusError(httpStatus: number, text: string): StatusError {
  const body = parse(text)
  if (!isRecord(body) || body['kind'] !== 'Status') {
    const quoted = text.trim().slice(0, 200)
    const detail = quoted === '' ? '' : `: ${quoted}`
    return new StatusError('InternalError', httpStatus, `HTTP status ${httpStatus}${detail}`, [])
  }
  return statusObjectError(body, httpStatus)
}

/** The error that a Status object describes; `httpStatus` when it has no code of its own. */
export function statusObjectError(
  status: Record<string, unknown>,
  httpStatus: number,
): StatusError {
  const details = isRecord(status['details']) ? status['details'] : {}
  const listed = Array.isArray(details['causes']) ? details['causes'].slice(0, causesShown) : []
  const causes = listed.filter(isRecord).map(cause => ({
    field: textOf(cause['field']),
    message: textOf(cause['message']),
  }))
  const code = status['code']
  return new StatusError(
    textOf(status['reason']) || 'InternalError',
    typeof code === 'number' ? code : httpStatus,
    textOf(status['message']) || `HTTP status ${httpStatus}`,
    causes,
  )
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
