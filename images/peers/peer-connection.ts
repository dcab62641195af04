import { type ClientHttp2Session, connect } from 'node:http2'
import { isIPv6 } from 'node:net'
import type { PeerCertificate } from 'node:tls'
import { backoffMs } from '../../base/backoff.ts'
import type { Clock, Timer } from '../../base/clock.ts'
import { failure, type MacfleetError } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { messageOf } from '../../base/log.ts'
import type { PeerDescription } from '../sources/source.ts'
import type { TransferTls } from '../transfer/transfers.ts'

/** What asking another host needs. */
export interface PeerSourceComponents {
  clock: Clock
  limits: Pick<
    Limits,
    'transferRequestChunks' | 'transferRequestsAtOnce' | 'transferStallMs' | 'transferIdleMs'
  >
  /** This host's certificate as it is now; the same object until it is renewed. */
  tls(): TransferTls | undefined
}

/** The connection to one host: made when it is needed, closed when it is not. */
export interface PeerConnection {
  /**
   * The session, which may be used until `release` is called.
   * @throws sourceFailed, also at once for a while after it could not be made
   */
  use(signal: AbortSignal): Promise<{ session: ClientHttp2Session; release(): void }>
  /** The error for this host. */
  failed(detail: string, cause?: unknown): MacfleetError
  close(): Promise<void>
}

const connectMs = 5_000
const backoff = { firstMs: 250, mostMs: 15_000 }
/**
 * Bytes that may be under way: of one answer, and of all of them. 10 Gbit/s at a round trip of
 * 10 ms are 12.5 MB.
 */
const streamWindowBytes = 8 * 1024 * 1024
const sessionWindowBytes = 32 * 1024 * 1024

interface Open {
  session: ClientHttp2Session
  tls: TransferTls
  users: number
  idle?: Timer
}

/** No connection yet. */
export function createPeerConnection(
  description: PeerDescription,
  components: PeerSourceComponents,
): PeerConnection {
  const { clock, limits } = components
  let current: Promise<Open> | undefined
  let failures = 0
  let notBeforeMs = 0
  let closed = false
  const failed = (detail: string, cause?: unknown): MacfleetError =>
    failure('sourceFailed', { source: `host ${description.name}`, detail }, { cause })
  const begin = (tls: TransferTls): Promise<Open> => {
    const opening = openSession(description, tls, components).then(
      session => {
        failures = 0
        return { session, tls, users: 0 }
      },
      error => {
        failures++
        notBeforeMs = clock.monotonicMs() + backoffMs(backoff, failures)
        if (current === opening) current = undefined
        throw failed(messageOf(error), error)
      },
    )
    return opening
  }
  const usable = async (): Promise<Open> => {
    for (;;) {
      const tls = components.tls()
      if (tls === undefined || closed) throw failed('this host has no certificate to show')
      if (current === undefined && clock.monotonicMs() < notBeforeMs) {
        throw failed('it could not be reached a moment ago')
      }
      current ??= begin(tls)
      const attempt = current
      const open = await attempt
      // One that was renewed is shown on a new connection; what is under way ends on the old one.
      if (isOpen(open.session) && open.tls === tls) return open
      if (current === attempt) current = undefined
      if (open.users === 0) open.session.close()
    }
  }
  return {
    failed,
    async use(signal) {
      const open = await abortable(usable(), signal)
      open.users++
      open.idle?.cancel()
      let released = false
      const release = () => {
        if (released) return
        released = true
        open.users--
        if (open.users > 0) return
        if (components.tls() !== open.tls) open.session.close()
        else open.idle = clock.setTimer(limits.transferIdleMs / 2, () => open.session.close())
      }
      return { session: open.session, release }
    },
    async close() {
      closed = true
      const open = await current?.catch(() => undefined)
      open?.idle?.cancel()
      open?.session.destroy()
    },
  }
}

function isOpen(session: ClientHttp2Session): boolean {
  return !session.closed && !session.destroyed
}

function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason)
    const onAbort = () => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}

function openSession(
  description: PeerDescription,
  { certificate, key, authorities }: TransferTls,
  { clock }: PeerSourceComponents,
): Promise<ClientHttp2Session> {
  const { address, port } = description
  return new Promise((resolve, reject) => {
    const session = connect(`https://${isIPv6(address) ? `[${address}]` : address}:${port}`, {
      cert: certificate,
      key,
      ca: authorities,
      minVersion: 'TLSv1.3',
      // Said, so that nobody's NODE_TLS_REJECT_UNAUTHORIZED says otherwise.
      rejectUnauthorized: true,
      checkServerIdentity: (_host, shown) => checkIdentity(shown, description),
      settings: { enablePush: false, initialWindowSize: streamWindowBytes },
      maxSessionMemory: 2 * (sessionWindowBytes / 1024 / 1024),
      maxHeaderListPairs: 32,
    })
    const timer = clock.setTimer(connectMs, () => {
      session.destroy(new Error(`it did not answer within ${connectMs} ms`))
    })
    session.on('error', reject)
    session.once('close', () => {
      timer.cancel()
      reject(new Error('it closed the connection'))
    })
    // Its settings are the first that a host says, and one that lets us in does.
    session.once('remoteSettings', () => {
      timer.cancel()
      session.setLocalWindowSize(sessionWindowBytes)
      resolve(session)
    })
  })
}

/** The chain was verified by then; here it is asked whether it is the right host. */
function checkIdentity(
  { subjectaltname = '' }: PeerCertificate,
  { identity, name }: PeerDescription,
): Error | undefined {
  // OpenSSL's text; a name with a comma in it is quoted by Node, so that it never looks like two.
  const uris = subjectaltname.split(', ').filter(each => each.startsWith('URI:'))
  if (uris.length === 1 && uris[0] === `URI:${identity}`) return undefined
  return new Error(`another host than ${name} answers there`)
}
