import { backoffMs } from '../../base/backoff.ts'
import { type Clock, sleep } from '../../base/clock.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import { type Random, randomInteger } from '../../base/random.ts'
import { createAuthorisation, type Scope } from './authorisation.ts'
import { type HttpAnswer, type HttpRequest, readWhole, type Transport } from './transport.ts'
import { lasting, Trouble, troubleOf } from './trouble.ts'

/** What the parts of a registry client are made of. */
export interface RegistryComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
}

/** One request to a registry. */
export interface RegistryRequest extends Omit<HttpRequest, 'url'> {
  /** From the top: `/v2/team/base/tags/list`; or a whole URL of this registry. */
  path: string | URL
  scope: Scope
  /** Answers of any other status are Trouble. */
  expect: readonly number[]
}

/** One host that speaks for a registry: the registry itself, or a mirror. */
export interface Endpoint {
  /** For logs and errors: `registry.example.test:5000`. */
  readonly host: string
  readonly origin: string
  /** Proves who we are, and tells good answers from bad. One try. @throws Trouble */
  call(request: RegistryRequest, signal: AbortSignal): Promise<HttpAnswer>
  /** As `call`, and follows where it points to: object storage, for blobs. */
  callFollowing(request: RegistryRequest, signal: AbortSignal): Promise<HttpAnswer>
  /** Does `work` again after trouble that passes, `tries` times at most. */
  persist<Result>(tries: number, signal: AbortSignal, work: () => Promise<Result>): Promise<Result>
  /** Waits before the next try; throws `trouble` when there should be none. */
  pause(trouble: Trouble, failures: number, signal: AbortSignal): Promise<void>
}

/** Where an endpoint is. */
export interface EndpointInit {
  host: string
  plainHttp: boolean
  credentials?: { username: string; password: string }
}

const redirects = [301, 302, 303, 307, 308]
const redirectsMost = 3
const authorisationsMost = 2
const errorBytes = 16 * 1024
const firstPauseMs = 250
const mostPauseMs = 15_000

/** Reaches one host of a registry by the transport, which others may use too. */
export function createEndpoint(
  init: EndpointInit,
  transport: Transport,
  components: RegistryComponents,
): Endpoint {
  const { clock, random, log, limits } = components
  const origin = new URL(`${init.plainHttp ? 'http' : 'https'}://${init.host}`).origin
  const { credentials } = init
  const authorisation = createAuthorisation(
    { origin, ...(credentials && { credentials }) },
    { clock, limits, transport },
  )
  let quietUntilMs = 0
  const send = async (request: RegistryRequest, signal: AbortSignal): Promise<HttpAnswer> => {
    const url = new URL(request.path, origin)
    if (url.origin !== origin) throw lasting(`it sends us on to ${url.host}`)
    for (let refusals = 0; ; refusals++) {
      const waitMs = quietUntilMs - clock.monotonicMs()
      if (waitMs > 0) await sleep(clock, waitMs, signal)
      const authorization = await authorisation.header(request.scope, signal)
      const headers = { ...request.headers, ...(authorization && { authorization }) }
      const answer = await transport.send({ ...request, url, headers }, signal)
      if (answer.status !== 401 || refusals === authorisationsMost) return answer
      const wanted = answer.header('www-authenticate') ?? ''
      if (!authorisation.learn(wanted, authorization)) return answer
      await answer.discard()
    }
  }
  const check = async (answer: HttpAnswer, expect: readonly number[]): Promise<HttpAnswer> => {
    if (expect.includes(answer.status)) return answer
    const trouble = await refusalOf(answer, authorisation.redact, clock)
    if (trouble.retryAfterMs !== undefined && trouble.retryAfterMs <= limits.registryRetryAfterMs) {
      quietUntilMs = Math.max(quietUntilMs, clock.monotonicMs() + trouble.retryAfterMs)
    }
    throw trouble
  }
  const endpoint: Endpoint = {
    host: init.host,
    origin,
    call: async (request, signal) => check(await send(request, signal), request.expect),
    async callFollowing(request, signal) {
      let url = new URL(request.path, origin)
      let answer = await send(request, signal)
      for (let followed = 0; redirects.includes(answer.status); followed++) {
        await answer.discard()
        if (followed === redirectsMost) throw lasting('it sends us on too many times')
        url = redirectOf(answer, url)
        // Credentials are the registry's own: no other host is shown any.
        answer =
          url.origin === origin
            ? await send({ ...request, path: url }, signal)
            : await transport.send({ ...request, url }, signal)
      }
      if (url.origin === origin || request.expect.includes(answer.status)) {
        return check(answer, request.expect)
      }
      await answer.discard()
      // What it pointed to may have been valid for a moment only: it is asked for another.
      throw new Trouble(`${url.host}, where it sends us, answers ${answer.status}`, {
        passing: true,
      })
    },
    async persist(tries, signal, work) {
      for (let failures = 1; ; failures++) {
        try {
          return await work()
        } catch (error) {
          signal.throwIfAborted()
          const trouble = troubleOf(error)
          if (failures >= tries) throw trouble
          await endpoint.pause(trouble, failures, signal)
        }
      }
    },
    async pause(trouble, failures, signal) {
      const { passing, message, retryAfterMs = 0 } = trouble
      if (!passing || retryAfterMs > limits.registryRetryAfterMs) throw trouble
      const longestMs = backoffMs({ firstMs: firstPauseMs, mostMs: mostPauseMs }, failures)
      const waitMs = Math.max(retryAfterMs, longestMs / 2) + randomInteger(random, longestMs / 2)
      const details = { registry: init.host, detail: message, failures, waitMs }
      log.info(details, 'A registry is asked again')
      await sleep(clock, waitMs, signal)
    },
  }
  return endpoint
}

function redirectOf(answer: HttpAnswer, from: URL): URL {
  const location = answer.header('location') ?? ''
  if (location === '' || !URL.canParse(location, from.href))
    throw lasting('it sends us on to nowhere')
  const url = new URL(location, from)
  const scheme = url.protocol.slice(0, -1)
  const isWeb = scheme === 'https' || (scheme === 'http' && from.protocol === 'http:')
  if (!isWeb) throw lasting(`it sends us on from ${from.protocol.slice(0, -1)} to ${scheme}`)
  if (url.username !== '' || url.password !== '') {
    throw lasting(`it sends us on to ${url.host} with credentials of its own`)
  }
  return url
}

/** What an answer that was not hoped for means. What it says is told on, without our secrets. */
async function refusalOf(
  answer: HttpAnswer,
  redact: (text: string) => string,
  clock: Clock,
): Promise<Trouble> {
  const { status } = answer
  const told = redact(await readWhole(answer.body, errorBytes).then(errorsOf, () => ''))
  const passing = status === 408 || status === 429 || status >= 500
  const retryAfterMs = passing ? retryAfter(answer.header('retry-after'), clock) : undefined
  const asks = retryAfterMs ? ` and asks us to wait ${Math.ceil(retryAfterMs / 1_000)} s` : ''
  return new Trouble(`it answers ${status}${told && ` (${told})`}${asks}`, {
    ...{ passing, status },
    ...(retryAfterMs !== undefined && { retryAfterMs }),
  })
}

/** Seconds or a date (RFC 9110, section 10.2.3). */
function retryAfter(header: string | undefined, clock: Clock): number | undefined {
  if (header === undefined) return undefined
  if (/^\d{1,9}$/.test(header)) return Number(header) * 1_000
  const atMs = Date.parse(header)
  return Number.isNaN(atMs) ? undefined : Math.max(0, atMs - clock.wallMs())
}

/** The first error that a registry names, in one short line of plain characters. */
function errorsOf(body: Buffer): string {
  try {
    const { code, message } = JSON.parse(body.toString('utf8')).errors[0]
    const text = [code, message].filter(part => typeof part === 'string').join(': ')
    return text.replace(/[^\x20-\x7e]+/g, ' ').slice(0, 200)
  } catch {
    return ''
  }
}
