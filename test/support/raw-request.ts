import { type Agent, type RequestOptions, request } from 'node:https'
import type { FleetHost } from './fleet-hosts.ts'

/** What came back from a peer port. */
export interface RawAnswer {
  status: number
  body: { code?: string; message?: string } & Record<string, unknown>
}

/** What is sent, as nobody with good intentions would. */
export interface RawRequest {
  path: string
  /** Sent as it is when it is text, else as JSON. */
  body?: unknown
  key?: string
  cert?: string
  agent?: Agent
  headers?: Record<string, string>
}

/** Asks a host without any of the checks that our own client makes. */
export function askRaw(
  { machine }: Pick<FleetHost, 'machine'>,
  { path, body, key, cert, agent, headers = {} }: RawRequest,
): Promise<RawAnswer> {
  const payload = typeof body === 'string' || body === undefined ? body : JSON.stringify(body)
  const options: RequestOptions = {
    host: machine.address.host,
    port: machine.address.peerPort,
    path,
    method: payload === undefined ? 'GET' : 'POST',
    rejectUnauthorized: false,
    headers: payload === undefined ? headers : { 'content-type': 'application/json', ...headers },
    agent: agent ?? false,
    ...(key === undefined ? {} : { key }),
    ...(cert === undefined ? {} : { cert }),
  }
  return new Promise((resolve, reject) => {
    const sent = request(options, response => {
      const chunks: Buffer[] = []
      response.on('error', reject)
      response.on('data', chunk => chunks.push(chunk))
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString()
        resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) })
      })
    })
    sent.on('error', reject)
    sent.end(payload)
  })
}
