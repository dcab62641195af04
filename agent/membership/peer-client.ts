import { X509Certificate } from 'node:crypto'
import { request as httpsRequest, type RequestOptions } from 'node:https'
import type { TLSSocket } from 'node:tls'
import { failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { messageOf } from '../../base/log.ts'
import { addressText, type PeerAddress } from '../../cluster/membership/token-text.ts'
import { errorOf } from './peer-errors.ts'

/** What a host says to anybody. */
export interface HelloAnswer {
  fleetId: string
  era: number
  /** Its wall clock, milliseconds since the epoch. */
  nowMs: number
  /** To be signed with the next request. */
  nonce: string
  version: string
}

/** A request to another host's peer port. */
export interface PeerRequest {
  address: PeerAddress
  path: string
  /** JSON; a request without it is a GET. */
  body?: unknown
  /** PEM: who must have signed the other's certificate. */
  ca: string
  /** Checks the other's certificate further; throws what is wrong. */
  check?: (certificate: X509Certificate) => void
  /** Our own certificate, where the other wants to see it. PEM. */
  own?: { key: string; cert: string }
  timeoutMs?: number
  signal?: AbortSignal
}

/** What a client needs. */
export interface PeerClientComponents {
  limits: Pick<Limits, 'memberAnswerBytes'>
}

const defaultTimeoutMs = 10_000
const helloBytes = 4_096

/**
 * Asks another host, whose certificate is verified before anything is sent.
 * @returns its answer, parsed
 * @throws fleetUnreachable, or the error that the other host told
 */
export async function askPeer(asked: PeerRequest, components: PeerClientComponents) {
  const { address, ca, check, own } = asked
  const options: RequestOptions = {
    ca,
    // Said, so that nobody's NODE_TLS_REJECT_UNAUTHORIZED says otherwise.
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3',
    // Without a session of before, what is checked is what is shown now.
    agent: false,
    ...(own === undefined ? {} : own),
    checkServerIdentity: (_host, certificate) => {
      try {
        check?.(new X509Certificate(certificate.raw))
        return undefined
      } catch (error) {
        return error instanceof Error ? error : new Error(messageOf(error))
      }
    },
  }
  const { status, text } = await exchange(asked, options, components.limits.memberAnswerBytes)
  const parsed = parse(text)
  if (status !== 200) throw errorOf(status, parsed, addressText(address))
  if (parsed === undefined) throw unreachable(address, 'its answer is no JSON')
  return parsed
}

/** Who answered, not verified by anybody yet, and what he said. */
export interface Greeting {
  hello: HelloAnswer
  /** The host's certificate and that of who should have signed it. */
  certificate: X509Certificate
  authority: X509Certificate | undefined
}

/**
 * Looks who is at an address: sends nothing but a question that anybody may ask. What comes back
 * is worth something only after the certificates were checked.
 * @throws fleetUnreachable
 */
export async function greet(
  asked: Pick<PeerRequest, 'address' | 'timeoutMs' | 'signal'>,
): Promise<Greeting> {
  let shown: Pick<Greeting, 'certificate' | 'authority'> | undefined
  const options: RequestOptions = { rejectUnauthorized: false, minVersion: 'TLSv1.3', agent: false }
  const request = { ...asked, path: '/v1/hello', ca: '' }
  const { status, text } = await exchange(request, options, helloBytes, socket => {
    const { raw, issuerCertificate } = socket.getPeerCertificate(true)
    if (raw === undefined) return
    const authority = issuerCertificate === undefined ? undefined : issuerCertificate.raw
    shown = {
      certificate: new X509Certificate(raw),
      authority: authority === undefined ? undefined : new X509Certificate(authority),
    }
  })
  const hello = readHello(parse(text))
  if (status !== 200 || hello === undefined || shown === undefined) {
    throw unreachable(asked.address, 'what answers there is no macfleet')
  }
  return { ...shown, hello }
}

function readHello(value: unknown): HelloAnswer | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const { fleetId, era, nowMs, nonce, version } = value as Partial<Record<string, unknown>>
  if (typeof fleetId !== 'string' || !/^[0-9a-f-]{36}$/.test(fleetId)) return undefined
  if (typeof era !== 'number' || typeof nowMs !== 'number') return undefined
  if (!(Math.abs(nowMs) <= 8.64e15)) return undefined
  if (typeof nonce !== 'string' || nonce.length > 128 || typeof version !== 'string') {
    return undefined
  }
  return { fleetId, era, nowMs, nonce, version: version.slice(0, 64) }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function unreachable(address: PeerAddress, detail: string): Error {
  return failure('fleetUnreachable', { detail: `${addressText(address)}: ${detail}` })
}

/** One HTTPS request with bounds on time and size. */
function exchange(
  { address, path, body, timeoutMs = defaultTimeoutMs, signal }: PeerRequest,
  options: RequestOptions,
  mostBytes: number,
  onSecure?: (socket: TLSSocket) => void,
): Promise<{ status: number; text: string }> {
  const timeout = AbortSignal.timeout(timeoutMs)
  const payload = body === undefined ? undefined : JSON.stringify(body)
  return new Promise((resolve, reject) => {
    const fail = (error: unknown) => {
      signal?.throwIfAborted()
      const detail = timeout.aborted ? `no answer within ${timeoutMs} ms` : messageOf(error)
      reject(unreachable(address, detail))
    }
    const onError = (error: unknown) => {
      try {
        fail(error)
      } catch (reason) {
        reject(reason)
      }
    }
    const headers =
      payload === undefined
        ? {}
        : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) }
    const request = httpsRequest({
      ...options,
      host: address.host,
      port: address.peerPort,
      path,
      method: payload === undefined ? 'GET' : 'POST',
      headers,
      signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
    })
    request.on('error', onError)
    request.on('socket', socket => {
      socket.once('secureConnect', () => onSecure?.(socket as TLSSocket))
    })
    request.on('response', response => {
      const chunks: Buffer[] = []
      let bytes = 0
      response.on('error', onError)
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length
        if (bytes > mostBytes) request.destroy(new Error(`its answer exceeds ${mostBytes} bytes`))
        else chunks.push(chunk)
      })
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString() })
      })
    })
    request.end(payload)
  })
}
