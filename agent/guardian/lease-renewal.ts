import { readFileSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { Agent, request } from 'node:https'
import type { BootClock } from '../../base/boot-clock.ts'
import type { Clock } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import { isFields, type LeaseParameters } from './protocol.ts'

/** How a round of renewals ended. */
export type RenewalOutcome =
  /** @param sentMs boot time just before the renewal that succeeded was sent */
  | { kind: 'renewed'; sentMs: number }
  /** Etcd has the lease, or the host's key under it, no more. */
  | { kind: 'gone' }
  /** Nobody answered in time, or not well. */
  | { kind: 'failed'; detail: string }

/** What renewing needs. */
export interface RenewerComponents {
  clock: Clock
  bootClock: BootClock
}

/** Renews one lease. */
export interface Renewer {
  /** One round: every endpoint in turn until one answers, the last good one first. Never throws. */
  renew(): Promise<RenewalOutcome>
  /** Lets go of connections. */
  close(): void
}

const answerBytes = 64 * 1024

/**
 * Renews a lease by etcd's JSON gateway, over mutual TLS; the certificates are read now, so make a
 * new one of these when they change. (The gateway calls its own server with the server's
 * certificate: that one must be allowed as a client's too.)
 *
 * A renewal counts when etcd took it *and* a linearizable read afterwards, in the same term, found
 * the host's key under the lease. Etcd renews leases without asking its quorum, and a leader that
 * was frozen or cut off does so after it was replaced (etcd issue 15247; mended in later releases,
 * not in Debian 12's). The read asks the quorum; the same term says that its leader still led.
 */
export function createRenewer(init: LeaseParameters, components: RenewerComponents): Renewer {
  const { authorityPath, certificatePath, keyPath } = init.tls
  const agent = new Agent({
    keepAlive: true,
    maxSockets: 1,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.2',
    ca: readFileSync(authorityPath),
    cert: readFileSync(certificatePath),
    key: readFileSync(keyPath),
  })
  let endpoints = [...init.endpoints]

  const tryOne = async (endpoint: string): Promise<RenewalOutcome> => {
    const abort = new AbortController()
    const timeoutMs = init.timing.renewalTimeoutMs
    const late = () => abort.abort(new Error(`no answer within ${timeoutMs} ms`))
    const timer = components.clock.setTimer(timeoutMs, late)
    const ask = (path: string, body: object) =>
      post(new URL(path, endpoint), body, { agent, signal: abort.signal })
    try {
      const sentMs = components.bootClock.nowMs()
      const answer = await ask('/v3/lease/keepalive', { ID: init.leaseId })
      return await judge(answer, sentMs, init, ask)
    } catch (error) {
      return { kind: 'failed', detail: messageOf(abort.signal.reason ?? error) }
    } finally {
      timer.cancel()
    }
  }

  return {
    async renew() {
      const details: string[] = []
      for (const endpoint of [...endpoints]) {
        const outcome = await tryOne(endpoint)
        if (outcome.kind !== 'failed') {
          endpoints = [endpoint, ...endpoints.filter(other => other !== endpoint)]
          return outcome
        }
        details.push(`${endpoint}: ${outcome.detail}`)
      }
      return { kind: 'failed', detail: details.join('; ') }
    },
    close: () => agent.destroy(),
  }
}

type Ask = (path: string, body: object) => Promise<Fields>
type Fields = Record<string, unknown>

/** What the answer to a renewal is worth. @throws when the read after it fails */
async function judge(
  { result }: Fields,
  sentMs: number,
  { key, leaseId, timing }: LeaseParameters,
  ask: Ask,
): Promise<RenewalOutcome> {
  if (!isFields(result)) throw new Error('it did not answer the renewal')
  // Zero is left out of etcd's JSON.
  const ttlMs = Number(result['TTL'] ?? 0) * 1000
  if (ttlMs <= 0) return { kind: 'gone' }
  if (!(ttlMs >= timing.hostLeaseTtlMs)) throw new Error(`the lease lives for ${ttlMs} ms only`)
  const range = { key: Buffer.from(key).toString('base64'), keys_only: true }
  const { header, kvs } = await ask('/v3/kv/range', range)
  const term = termOf(result['header'])
  if (term === undefined || termOf(header) !== term) throw new Error('its leader has changed')
  const [entry] = Array.isArray(kvs) ? kvs : []
  const attached = isFields(entry) && String(entry['lease']) === leaseId
  return attached ? { kind: 'renewed', sentMs } : { kind: 'gone' }
}

function termOf(header: unknown): string | undefined {
  if (!isFields(header) || header['raft_term'] === undefined) return undefined
  return String(header['raft_term'])
}

/** Sends JSON and reads the first line of JSON that comes back. */
function post(
  url: URL,
  body: object,
  { agent, signal }: { agent: Agent; signal: AbortSignal },
): Promise<Fields> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json' }
    const sent = request(url, { method: 'POST', agent, signal, headers }, response => {
      readAnswer(response).then(resolve, error => {
        sent.destroy()
        reject(error)
      })
    })
    sent.on('error', reject)
    sent.end(JSON.stringify(body))
  })
}

async function readAnswer(response: IncomingMessage): Promise<Fields> {
  const pieces: Buffer[] = []
  let heldBytes = 0
  for await (const piece of response) {
    heldBytes += piece.length
    if (heldBytes > answerBytes) throw new Error('its answer is too long')
    pieces.push(piece)
  }
  const [line = ''] = Buffer.concat(pieces).toString('utf8').split('\n')
  if (response.statusCode !== 200) throw new Error(`status ${response.statusCode}`)
  const answer: unknown = JSON.parse(line)
  if (!isFields(answer)) throw new Error('its answer is no object')
  return answer
}
