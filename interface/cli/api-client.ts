import type { Agent as HttpAgent, IncomingMessage } from 'node:http'
import type { Readable } from 'node:stream'
import type { Clock } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { connectionError } from './connection-error.ts'
import { statusError } from './status-error.ts'

// An `import` of node:http reads each of its exports once, which loads WebSockets and TLS too and takes
// longer than everything else at start.
const { Agent, request: httpRequest } = process.getBuiltinModule('node:http')

/** Which daemon. */
export interface ApiClientInit {
  socket: string
  /** Bounds of what is read from it. */
  limits: Pick<Limits, 'clientAnswerBytes'>
}

/** What the client needs. */
export interface ApiClientComponents {
  clock: Clock
  /** Ends every request when aborted. */
  signal: AbortSignal
  /** Told what the daemon says beside its answers (`Warning: 299`), each sentence once. */
  onWarning?(sentence: string): void
}

/** What a request may carry besides its method and path. */
export interface RequestOptions {
  /** Sent as JSON. */
  body?: unknown
  /** Type of the body; `application/json` by default. */
  contentType?: string
  accept?: string
  query?: Readonly<Record<string, string | undefined>>
  /** How long the daemon may take to begin its answer; 30 s by default. */
  timeoutMs?: number
  signal?: AbortSignal
  /** Length of the bytes that are uploaded, where it is known. */
  sizeBytes?: number
  headers?: Readonly<Record<string, string>>
}

/** Speaks HTTP to one daemon over its unix socket. */
export interface ApiClient {
  readonly socket: string
  /** Sends a request and reads the whole JSON answer. Throws StatusError for an answer of 400 and up. */
  request(method: string, path: string, options?: RequestOptions): Promise<unknown>
  /** Sends a request and hands over the answer as it arrives. */
  stream(method: string, path: string, options?: RequestOptions): Promise<IncomingMessage>
  /** Sends a body of bytes as they come, and reads the whole JSON answer, however long it takes. */
  upload(path: string, content: Readable, options?: RequestOptions): Promise<unknown>
  /** Closes idle connections. */
  close(): void
}

const answerTimeoutMs = 30_000
/** More warnings of one run are not shown. */
const warningsMost = 20

/** Appends the query's defined members to a path. */
export function withQuery(path: string, query: RequestOptions['query']): string {
  const parameters = new URLSearchParams()
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined) parameters.set(name, value)
  }
  const text = parameters.toString()
  return text === '' ? path : `${path}?${text}`
}

/** Makes the client of one daemon; nothing is sent until a request is. */
export function createApiClient(init: ApiClientInit, components: ApiClientComponents): ApiClient {
  const agent = new Agent({ keepAlive: true, maxSockets: 8 })
  const onWarnings = tellOnce(components.onWarning)
  const send = (method: string, path: string, options: RequestOptions, content?: Readable) =>
    sendRequest({ init, components, agent, onWarnings, method, path, options, content })
  const answer = async (method: string, path: string, message: IncomingMessage) => {
    const text = await readText(message, init.limits.clientAnswerBytes, `${method} ${path}`)
    if (text === '') return undefined
    try {
      return JSON.parse(text)
    } catch {
      const request = `${method} ${path}`
      throw failure('answerInvalid', { request, detail: 'it is no JSON' })
    }
  }
  return {
    socket: init.socket,
    async request(method, path, options = {}) {
      return answer(method, path, await send(method, path, options))
    },
    stream: (method, path, options = {}) => send(method, path, options),
    async upload(path, content, options = {}) {
      return answer('PUT', path, await send('PUT', path, options, content))
    },
    close: () => agent.destroy(),
  }
}

interface Sending {
  init: ApiClientInit
  components: ApiClientComponents
  agent: HttpAgent
  onWarnings(header: string): void
  method: string
  path: string
  options: RequestOptions
  content: Readable | undefined
}

/** Sends one request; resolves with an answer below 400, throws the error of any other. */
async function sendRequest(sending: Sending): Promise<IncomingMessage> {
  const { init, method, path } = sending
  const message = await roundTrip(sending)
  sending.onWarnings(String(message.headers['warning'] ?? ''))
  const status = message.statusCode ?? 0
  if (status < 400) return message
  throw statusError(
    status,
    await readText(message, init.limits.clientAnswerBytes, `${method} ${path}`),
  )
}

/** Warnings are told again with each answer; people read them once. */
function tellOnce(onWarning: ApiClientComponents['onWarning']): (header: string) => void {
  const told = new Set<string>()
  return header => {
    for (const [, sentence = ''] of header.matchAll(/\b299 \S+ "([^"]*)"/g)) {
      if (told.has(sentence) || told.size >= warningsMost) continue
      told.add(sentence)
      onWarning?.(sentence)
    }
  }
}

function headersOf(options: RequestOptions, body: string | undefined): Record<string, string> {
  const accept = options.accept ?? 'application/json'
  const host = 'macfleet'
  const sizeBytes = body === undefined ? options.sizeBytes : Buffer.byteLength(body)
  const type = options.contentType ?? (body === undefined ? undefined : 'application/json')
  return {
    accept,
    host,
    ...(type === undefined ? {} : { 'content-type': type }),
    ...(sizeBytes === undefined ? {} : { 'content-length': String(sizeBytes) }),
    ...options.headers,
  }
}

function roundTrip(sending: Sending): Promise<IncomingMessage> {
  const { init, components, agent, method, path, options, content } = sending
  const body = options.body === undefined ? undefined : JSON.stringify(options.body)
  const signals = options.signal ? [components.signal, options.signal] : [components.signal]
  const signal = AbortSignal.any(signals)
  return new Promise((resolve, reject) => {
    const request = httpRequest({
      socketPath: init.socket,
      agent,
      method,
      path: withQuery(path, options.query),
      headers: headersOf(options, body),
      signal,
    })
    const timeoutMs = options.timeoutMs ?? answerTimeoutMs
    const what = `${method} ${path}`
    const timer =
      content === undefined
        ? components.clock.setTimer(timeoutMs, () =>
            request.destroy(failure('timeout', { what, timeoutMs })),
          )
        : undefined
    request.on('response', message => {
      timer?.cancel()
      resolve(message)
    })
    request.on('error', error => {
      timer?.cancel()
      reject(signal.aborted ? signal.reason : connectionError(error, init.socket))
    })
    if (content === undefined) {
      request.end(body)
      return
    }
    content.on('error', error => request.destroy(error))
    // An answer before the end of the body is a refusal: the rest is not wanted.
    request.on('close', () => content.destroy())
    content.pipe(request)
  })
}

/** Reads a body to its end as UTF-8. */
export async function readText(
  message: IncomingMessage,
  limitBytes: number,
  request: string,
): Promise<string> {
  const chunks: Buffer[] = []
  let sizeBytes = 0
  try {
    for await (const chunk of message) {
      sizeBytes += chunk.length
      if (sizeBytes > limitBytes) {
        message.destroy()
        throw failure('answerInvalid', { request, detail: `it has more than ${limitBytes} bytes` })
      }
      chunks.push(chunk)
    }
  } catch (error) {
    throw connectionError(error, '')
  }
  return Buffer.concat(chunks).toString('utf8')
}
