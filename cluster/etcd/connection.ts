import { type Clock, sleep } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import { type Random, randomInteger } from '../../base/random.ts'
import { createAvailability, type EtcdAvailability } from './availability.ts'
import {
  createEndpoint,
  type Endpoint,
  type EtcdTls,
  type Exchange,
  parseEndpoint,
} from './endpoint.ts'
import { createLostWrites } from './lost-writes.ts'
import type { Method, Methods } from './messages.ts'
import { loadRpc } from './rpc.ts'
import { etcdUnavailable, kindOf, RpcFailure } from './rpc-failure.ts'

export type { EtcdAvailability } from './availability.ts'
export type { EtcdTls } from './endpoint.ts'

/** Where etcd is, and who we are. */
export interface EtcdConnectionInit {
  /** The client URLs of voters, `https://HOST:PORT`; may be empty for now. */
  endpoints: readonly string[]
  /** What we show and trust now; read again by `reloadTls`. Without it plain text (tests only). */
  tls?: () => EtcdTls
}

/** What a connection needs. */
export interface EtcdConnectionComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
}

/** How a call is made. */
export interface EtcdCallOptions {
  /** Whether doing it twice is as good as once: then a doubtful end is followed by another try. */
  repeatable: boolean
  /** Over all tries. */
  timeoutMs: number
}

/**
 * Calls to whichever member of etcd answers. One endpoint is used until it fails, then the next.
 * Everything throws `unavailable` when none answers in time, RpcFailure when etcd said no.
 */
export interface EtcdConnection {
  call<Name extends Method>(
    method: Name,
    request: Methods[Name][0],
    options: EtcdCallOptions,
  ): Promise<Methods[Name][1]>
  /** Asks exactly this endpoint, once, whether it knows a leader or not. */
  callAt<Name extends Method>(
    endpoint: string,
    method: Name,
    request: Methods[Name][0],
    timeoutMs: number,
  ): Promise<Methods[Name][1]>
  /** Begins an exchange at whichever endpoint can be reached. */
  exchange<Name extends Method>(method: Name): Promise<EtcdExchange<Name>>
  /** Begins one at exactly this endpoint, over a connection of its own, leader or not. */
  exchangeAt<Name extends Method>(endpoint: string, method: Name): Promise<Exchange<Name>>
  /** Goes on with these; exchanges with endpoints that are no longer named end. */
  setEndpoints(endpoints: readonly string[]): void
  /** Connects anew with what `init.tls` says now; calls under way end in peace. */
  reloadTls(): void
  availability(): EtcdAvailability
  /** Calls back at each change. @returns to be called to end it */
  onAvailability(listener: (availability: EtcdAvailability) => void): () => void
  /** Ends everything; what is under way fails with `unavailable`. */
  close(): void
}

/** An exchange that tells whether its endpoint is worth using. */
export interface EtcdExchange<Name extends Method> extends Exchange<Name> {
  readonly endpoint: string
  /** Aborted when the endpoint is no longer to be used. */
  readonly retired: AbortSignal
  /** The endpoint did its work: it is available. */
  worked(): void
  /** The endpoint failed: the next exchange, and calls, go to another one. */
  failed(reason: string): void
}

/** A connection that can't be made within this time is no reason to wait any longer. */
const connectMs = 1_000

/** One try of something that may be tried elsewhere. */
const tryMs = 1_500

/** Between two rounds over all endpoints. */
const roundMs = 100

/** Loads the gRPC library; connects when it is first used. */
export async function createEtcdConnection(
  init: EtcdConnectionInit,
  components: EtcdConnectionComponents,
): Promise<EtcdConnection> {
  const { clock, limits, log, random } = components
  const rpc = await loadRpc()
  const availability = createAvailability(clock)
  const lost = createLostWrites(clock)
  const closing = new AbortController()
  let endpoints: Endpoint[] = []
  let current = 0
  let calls = 0
  let exchangesFailed = 0

  const make = (url: string): Endpoint => createEndpoint({ url, tls: init.tls?.() }, rpc, clock)
  const setEndpoints = (urls: readonly string[]): void => {
    for (const url of urls) parseEndpoint(url)
    const before = new Map(endpoints.map(endpoint => [endpoint.url, endpoint]))
    const used = endpoints[current]?.url
    endpoints = [...new Set(urls)].map(url => before.get(url) ?? make(url))
    current = endpoints.findIndex(({ url }) => url === used)
    if (current < 0) current = endpoints.length > 1 ? randomInteger(random, endpoints.length) : 0
    for (const [url, endpoint] of before) if (!urls.includes(url)) endpoint.retire()
  }
  setEndpoints(init.endpoints)

  const leave = (endpoint: Endpoint, reason: string): void => {
    if (endpoints[current] !== endpoint) return
    current = (current + 1) % endpoints.length
    if (closing.signal.aborted) return
    log.debug({ endpoint: endpoint.url, reason }, 'leaving an endpoint of etcd')
  }
  const assertOpen = (): void => {
    if (closing.signal.aborted) throw etcdUnavailable('it was closed')
  }
  const unavailable = (reason: string): Error => {
    availability.failed(reason)
    return etcdUnavailable(reason)
  }
  /** The endpoint in use, or the next that can be reached; undefined when there are none. */
  const reach = async (): Promise<Endpoint | undefined> => {
    const endpoint = endpoints[current]
    if (endpoint === undefined) return undefined
    await endpoint.ready(connectMs).catch(error => {
      leave(endpoint, messageOf(error))
      throw error
    })
    return endpoint
  }
  const write = <Name extends Method>(
    endpoint: Endpoint,
    method: Name,
    request: Methods[Name][0],
    timeoutMs: number,
  ): Promise<Methods[Name][1]> =>
    lost.watch(endpoint, signal =>
      endpoint.call(method, request, { timeoutMs, needsLeader: true, signal }),
    )
  /** Tries once. @returns undefined when another try may be made, after `why` */
  const attempt = async <Name extends Method>(
    [method, request]: [Name, Methods[Name][0]],
    repeatable: boolean,
    timeoutMs: number,
    why: (reason: string) => void,
  ): Promise<Methods[Name][1] | undefined> => {
    let endpoint: Endpoint | undefined
    try {
      endpoint = await reach()
      if (endpoint === undefined) {
        why('no endpoint of etcd is known')
        return undefined
      }
      const answer = repeatable
        ? await endpoint.call(method, request, { timeoutMs, needsLeader: true })
        : await write(endpoint, method, request, timeoutMs)
      if ('header' in answer && answer.header !== null) lost.heard(answer.header.raftTerm)
      availability.worked()
      return answer
    } catch (error) {
      if (!(error instanceof RpcFailure)) throw error
      const kind = kindOf(error)
      if (kind === 'refused') {
        availability.worked()
        throw error
      }
      if (endpoint !== undefined) leave(endpoint, error.message)
      if (kind === 'doubtful' && !repeatable) throw unavailable(error.message)
      why(error.message)
      return undefined
    }
  }
  const call: EtcdConnection['call'] = async (method, request, { repeatable, timeoutMs }) => {
    const untilMs = clock.monotonicMs() + timeoutMs
    let reason = ''
    for (let tries = 1; ; tries++) {
      assertOpen()
      const leftMs = untilMs - clock.monotonicMs()
      if (leftMs <= 0) throw unavailable(reason)
      const forMs = repeatable ? Math.min(leftMs, tryMs) : leftMs
      const answer = await attempt([method, request], repeatable, forMs, text => {
        reason = text
      })
      if (answer !== undefined) return answer
      if (tries % Math.max(1, endpoints.length) > 0) continue
      await sleep(clock, roundMs, closing.signal).catch(() => {})
    }
  }
  const counted: EtcdConnection['call'] = async (method, request, options) => {
    if (calls >= limits.etcdCalls) {
      throw failure('tooMany', { limit: limits.etcdCalls, what: 'calls to etcd' })
    }
    calls++
    try {
      return await call(method, request, options)
    } finally {
      calls--
    }
  }
  const begin = <Name extends Method>(endpoint: Endpoint, method: Name): EtcdExchange<Name> => ({
    ...endpoint.exchange(method, true),
    endpoint: endpoint.url,
    retired: endpoint.retired,
    worked() {
      exchangesFailed = 0
      availability.worked()
    },
    failed(reason) {
      if (endpoint.retired.aborted) return
      leave(endpoint, reason)
      // One broken exchange is no loss yet: the next is begun at another endpoint.
      if (++exchangesFailed > 1) availability.failed(reason)
    },
  })
  /** Does something with one endpoint, which may be one that is not in the list. */
  const at = async <Result>(url: string, work: (endpoint: Endpoint) => Promise<Result>) => {
    assertOpen()
    parseEndpoint(url)
    const known = endpoints.find(endpoint => endpoint.url === url)
    const endpoint = known ?? make(url)
    try {
      await endpoint.ready(connectMs)
      return await work(endpoint)
    } catch (error) {
      if (!(error instanceof RpcFailure) || kindOf(error) === 'refused') throw error
      throw etcdUnavailable(`${url}: ${error.message}`)
    } finally {
      if (known === undefined) endpoint.retire()
    }
  }

  return {
    call: counted,
    callAt: (url, method, request, timeoutMs) =>
      at(url, endpoint => endpoint.call(method, request, { timeoutMs, needsLeader: false })),
    async exchange(method) {
      assertOpen()
      try {
        const endpoint = await reach()
        if (endpoint !== undefined) return begin(endpoint, method)
      } catch (error) {
        throw unavailable(messageOf(error))
      }
      throw unavailable('no endpoint of etcd is known')
    },
    async exchangeAt(url, method) {
      assertOpen()
      const endpoint = make(url)
      try {
        await endpoint.ready(connectMs)
      } catch (error) {
        endpoint.retire()
        throw etcdUnavailable(`${url}: ${messageOf(error)}`)
      }
      const exchange = endpoint.exchange(method, false)
      return { ...exchange, messages: () => thenRetire(exchange, endpoint) }
    },
    setEndpoints,
    reloadTls() {
      const before = endpoints
      endpoints = before.map(({ url }) => make(url))
      for (const endpoint of before) endpoint.retire()
    },
    availability: () => availability.now(),
    onAvailability: listener => availability.listen(listener),
    close() {
      closing.abort()
      for (const endpoint of endpoints) endpoint.retire()
    },
  }
}

async function* thenRetire<Name extends Method>(
  exchange: Exchange<Name>,
  endpoint: Endpoint,
): AsyncGenerator<Methods[Name][1]> {
  try {
    yield* exchange.messages()
  } finally {
    endpoint.retire()
  }
}
