import { checkServerIdentity } from 'node:tls'
import type { ChannelOptions, Client, Metadata } from '@grpc/grpc-js'
import type { Clock } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { Method, Methods } from './messages.ts'
import type { Rpc, Wire } from './rpc.ts'
import { RpcFailure } from './rpc-failure.ts'

/** How we prove who we are and know who answers; texts in PEM. */
export interface EtcdTls {
  certificateAuthority: string
  certificate: string
  key: string
}

/** How an endpoint is made. */
export interface EndpointInit {
  /** `https://HOST:PORT`, or `http:` without TLS (tests only). */
  url: string
  /** When given, every connection is by TLS. */
  tls: EtcdTls | undefined
}

/** A call with any number of messages either way. */
export interface Exchange<Name extends Method> {
  write(request: Methods[Name][0]): void
  /** Says that no more is written. */
  end(): void
  /** What comes back. Leaving the loop ends the call. Throws RpcFailure. */
  messages(): AsyncGenerator<Methods[Name][1]>
  cancel(): void
}

/** One member of etcd, over one connection of HTTP/2 that is made when it is first needed. */
export interface Endpoint {
  readonly url: string
  /** Aborted when the endpoint is no longer to be used; exchanges end then. */
  readonly retired: AbortSignal
  /** Waits for the connection. @throws RpcFailure of the kind `noEffect` */
  ready(timeoutMs: number): Promise<void>
  /** One question, one answer. @throws RpcFailure */
  call<Name extends Method>(
    method: Name,
    request: Methods[Name][0],
    options: CallOptions,
  ): Promise<Methods[Name][1]>
  /** @param needsLeader ends it when the member has known no leader for a while */
  exchange<Name extends Method>(method: Name, needsLeader: boolean): Exchange<Name>
  /** Ends exchanges now and lets calls under way come to their end. */
  retire(): void
}

/** How one call is made. */
export interface CallOptions {
  timeoutMs: number
  /** Has a member that knows no leader refuse at once, before anything is done. */
  needsLeader: boolean
  /** Gives the call up when aborted; it may have been done. */
  signal?: AbortSignal
}

/** Bytes of one answer; pages of a list are made smaller when they do not fit. */
const answerBytes = 32 * 1024 * 1024

/**
 * A connection that is in use and silent is asked for a sign of life after this long, and given up
 * when none comes for as long again. etcd must allow it: see `etcdServerFlags`.
 */
const keepaliveMs = 1_000

/** How a call begins to say that it was never sent; also in the library's own words. */
const unconnected = 'No connection established'
const reasonMs = 100

const channelOptions: ChannelOptions = {
  'grpc.keepalive_time_ms': keepaliveMs,
  'grpc.keepalive_timeout_ms': keepaliveMs,
  'grpc.initial_reconnect_backoff_ms': 200,
  'grpc.max_reconnect_backoff_ms': 1_000,
  'grpc.max_receive_message_length': answerBytes,
  'grpc.max_send_message_length': answerBytes,
  'grpc.use_local_subchannel_pool': 1,
  'grpc.service_config_disable_resolution': 1,
  'grpc.enable_retries': 0,
  'grpc.enable_channelz': 0,
  // The environment of a daemon must not send the store's traffic somewhere else.
  'grpc.enable_http_proxy': 0,
}

/** Nothing is connected yet. */
export function createEndpoint(init: EndpointInit, rpc: Rpc, clock: Clock): Endpoint {
  const { grpc } = rpc
  const { client, channelState } = createClient(init, rpc)
  const retirement = new AbortController()
  const withLeader = new grpc.Metadata()
  withLeader.set('hasleader', 'true')
  const without = new grpc.Metadata()

  const notConnected = (): RpcFailure => new RpcFailure(14, `${unconnected} to ${init.url}`)
  /** Only a call is told why there is no connection, and it is told at once. */
  const reasonOf = async (): Promise<RpcFailure> => {
    const what = { request: {}, metadata: without, timeoutMs: reasonMs, needsLeader: false }
    try {
      await callOnce(client, rpc.wire('Maintenance.Status'), clock, what)
    } catch (error) {
      if (error instanceof RpcFailure && error.message.startsWith(unconnected)) return error
    }
    return notConnected()
  }

  return {
    url: init.url,
    retired: retirement.signal,
    async ready(timeoutMs) {
      const { READY, TRANSIENT_FAILURE, SHUTDOWN } = grpc.connectivityState
      const untilMs = clock.monotonicMs() + timeoutMs
      for (;;) {
        const state = channelState(true)
        if (state === READY) return
        const leftMs = untilMs - clock.monotonicMs()
        if (state === TRANSIENT_FAILURE) throw await reasonOf()
        if (state === SHUTDOWN || leftMs <= 0) throw notConnected()
        await stateChange(client, state, leftMs, clock)
      }
    },
    call: (method, request, options) => {
      const { needsLeader } = options
      return callOnce(client, rpc.wire(method), clock, {
        ...options,
        request,
        metadata: needsLeader ? withLeader : without,
      })
    },
    exchange: (method, needsLeader) =>
      openExchange(client, rpc, method, needsLeader ? withLeader : without, retirement.signal),
    retire() {
      retirement.abort()
      client.close()
    },
  }
}

function createClient({ url, tls }: EndpointInit, { grpc }: Rpc) {
  const { host, hostname } = parseEndpoint(url)
  // Whatever the URL says: other hosts tell where etcd is, and must not talk us out of TLS.
  const client =
    tls === undefined
      ? new grpc.Client(host, grpc.credentials.createInsecure(), channelOptions)
      : new grpc.Client(host, secureCredentials(tls, hostname, grpc), {
          ...channelOptions,
          // An address is no name to ask TLS for (RFC 6066, section 3): what is checked is below.
          'grpc.ssl_target_name_override': 'etcd',
        })
  const channel = client.getChannel()
  return { client, channelState: (connect: boolean) => channel.getConnectivityState(connect) }
}

function secureCredentials(tls: EtcdTls, hostname: string, grpc: Rpc['grpc']) {
  const { certificateAuthority, key, certificate } = tls
  const address = hostname.replace(/^\[|\]$/g, '')
  return grpc.credentials.createSsl(
    Buffer.from(certificateAuthority),
    Buffer.from(key),
    Buffer.from(certificate),
    {
      checkServerIdentity: (_, shown) => checkServerIdentity(address, shown),
      rejectUnauthorized: true,
    },
  )
}

/** Takes a URL of an endpoint apart; throws `invalid` when it is none. */
export function parseEndpoint(url: string): URL {
  const parsed = URL.parse(url)
  if (parsed !== null && /^https?:$/.test(parsed.protocol) && parsed.port !== '') return parsed
  const detail = 'an endpoint is https://HOST:PORT'
  throw failure('invalid', { kind: 'etcd endpoint', name: url, detail })
}

/** Resolves when the state is another one, or after so long. */
function stateChange(client: Client, state: number, waitMs: number, clock: Clock): Promise<void> {
  return new Promise(resolve => {
    const timer = clock.setTimer(waitMs, resolve)
    client.getChannel().watchConnectivityState(state, Number.POSITIVE_INFINITY, () => {
      timer.cancel()
      resolve()
    })
  })
}

function callOnce<Name extends Method>(
  client: Client,
  { path, encode, decode }: Wire<Name>,
  clock: Clock,
  what: CallOptions & { request: Methods[Name][0]; metadata: Metadata },
): Promise<Methods[Name][1]> {
  const { request, metadata, timeoutMs, signal } = what
  return new Promise((resolve, reject) => {
    let reason: string | undefined
    const call = client.makeUnaryRequest(
      path,
      encode,
      decode,
      request,
      metadata,
      (error, value) => {
        timer.cancel()
        signal?.removeEventListener('abort', onAbort)
        if (reason !== undefined) reject(new RpcFailure(4, reason))
        else if (error !== null) reject(new RpcFailure(error.code, error.details))
        else if (value === undefined) reject(new RpcFailure(13, 'an answer without content'))
        else resolve(value)
      },
    )
    const giveUp = (why: string): void => {
      reason = why
      call.cancel()
    }
    const onAbort = (): void => giveUp('its leader was lost while it was under way')
    const timer = clock.setTimer(timeoutMs, () => giveUp(`no answer within ${timeoutMs} ms`))
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}

function openExchange<Name extends Method>(
  client: Client,
  rpc: Rpc,
  method: Name,
  metadata: Metadata,
  retired: AbortSignal,
): Exchange<Name> {
  const { path, encode, decode } = rpc.wire(method)
  const call = client.makeBidiStreamRequest(path, encode, decode, metadata)
  const cancel = (): void => call.cancel()
  // Also one that comes when nobody reads any more must not end the process.
  call.on('error', () => {})
  retired.addEventListener('abort', cancel, { once: true })
  call.once('close', () => retired.removeEventListener('abort', cancel))
  if (retired.aborted) cancel()
  return {
    write: request => {
      call.write(request)
    },
    end: () => call.end(),
    cancel,
    async *messages() {
      try {
        for await (const message of call) yield message as Methods[Name][1]
      } catch (error) {
        throw asRpcFailure(error)
      } finally {
        call.cancel()
      }
    },
  }
}

function asRpcFailure(error: unknown): Error {
  if (!(error instanceof Error)) return new Error(String(error))
  const code: unknown = Reflect.get(error, 'code')
  const details: unknown = Reflect.get(error, 'details')
  if (typeof code !== 'number') return error
  return new RpcFailure(code, typeof details === 'string' ? details : error.message)
}
