import { MacfleetError } from '../../base/errors.ts'

/** How a piece of trouble is to be taken. */
export interface TroubleInit {
  /** Another try may go better. */
  passing: boolean
  /** The least wait before that, as the registry asked for. */
  retryAfterMs?: number
  /** The HTTP status, when there was an answer. */
  status?: number
  cause?: unknown
}

/**
 * What a registry did wrong, before anybody has decided what to do about it: the message is fit for
 * users and holds no secret. It never leaves this folder: the client makes an error of the table of
 * it.
 */
export class Trouble extends Error {
  readonly passing: boolean
  readonly retryAfterMs: number | undefined
  readonly status: number | undefined

  constructor(message: string, init: TroubleInit) {
    super(message, { cause: init.cause })
    this.name = 'Trouble'
    this.passing = init.passing
    this.retryAfterMs = init.retryAfterMs
    this.status = init.status
  }
}

/** Trouble that will be the same next time. */
export function lasting(message: string, status?: number): Trouble {
  return new Trouble(message, { passing: false, ...(status !== undefined && { status }) })
}

const certificateCodes = new Set([
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
  'CERT_SIGNATURE_FAILURE',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'ERR_TLS_CERT_ALTNAME_INVALID',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
])

const passingCodes: Record<string, string> = {
  EAI_AGAIN: 'its name can not be resolved',
  ECONNREFUSED: 'nobody listens there',
  ECONNRESET: 'the connection was cut',
  EHOSTUNREACH: 'there is no way to it',
  ENETUNREACH: 'there is no way to it',
  ENOTFOUND: 'its name can not be resolved',
  EPIPE: 'the connection was cut',
  ETIMEDOUT: 'it does not answer',
  UND_ERR_CONNECT_TIMEOUT: 'it does not answer',
  UND_ERR_SOCKET: 'the connection was cut',
}

/** What a failed exchange means. What is none of the network's is thrown again. */
export function troubleOf(error: unknown): Trouble {
  if (error instanceof Trouble) return error
  const code = codeOf(error)
  if (code === '' || error instanceof MacfleetError) throw error
  if (certificateCodes.has(code)) {
    return new Trouble(`its certificate is not trusted (${code})`, { passing: false, cause: error })
  }
  if (/^(EPROTO|ERR_SSL_)/.test(code)) {
    return new Trouble('it does not speak TLS', { passing: false, cause: error })
  }
  if (code === 'UND_ERR_HEADERS_OVERFLOW') {
    return new Trouble('its answer has too long a header', { passing: false, cause: error })
  }
  const message = passingCodes[code] ?? `the exchange failed (${code})`
  return new Trouble(message, { passing: true, cause: error })
}

/** The code of an error, or of the first of those that it stands for. */
function codeOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return codeOf(error.errors[0])
  if (!(error instanceof Error) || !('code' in error)) return ''
  return typeof error.code === 'string' ? error.code : ''
}
