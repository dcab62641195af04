import Type from 'typebox'
import { Value } from 'typebox/value'
import type { Clock } from '../../base/clock.ts'
import type { Limits } from '../../base/limits.ts'
import { parseChallenges } from './challenge.ts'
import { isInward } from './inward.ts'
import { readWhole, type Transport } from './transport.ts'
import { lasting, Trouble } from './trouble.ts'

/** What is to be done in which repository: `repository:team/base:pull`; several by spaces. */
export type Scope = string

/** Proves to one registry who we are, as it wishes. */
export interface Authorisation {
  /** The header for a request, as far as is known what it wants. */
  header(scope: Scope, signal: AbortSignal): Promise<string | undefined>
  /**
   * Takes the registry's refusal of a request, and says whether the same request may fare better
   * now.
   * @param sent the header that was refused
   */
  learn(wwwAuthenticate: string, sent: string | undefined): boolean
  /** Replaces our secrets in what a registry said. */
  redact(text: string): string
}

/** Whom we prove it to. */
export interface AuthorisationInit {
  /** `https://registry.example.test:5000` */
  origin: string
  credentials?: { username: string; password: string }
}

/** What an authorisation is made of. */
export interface AuthorisationComponents {
  clock: Clock
  limits: Limits
  transport: Transport
}

interface Bearer {
  kind: 'bearer'
  realm: URL
  service?: string
}

interface Token {
  value: string
  untilMs: number
}

const tokenBytes = 64 * 1024
const tokenSchema = Type.Object({
  token: Type.Optional(Type.String({ maxLength: 16_384, pattern: '^[\\x21-\\x7e]*$' })),
  access_token: Type.Optional(Type.String({ maxLength: 16_384, pattern: '^[\\x21-\\x7e]*$' })),
  expires_in: Type.Optional(Type.Number()),
})

/**
 * Nothing is shown before it is asked for. The credentials go to the registry (Basic), or to the
 * token service it names (Bearer): over TLS, or without only where the registry itself is spoken to
 * without and the service is on the same host. The scope is ours, not what the registry asks for.
 */
export function createAuthorisation(
  init: AuthorisationInit,
  components: AuthorisationComponents,
): Authorisation {
  const { clock, limits } = components
  let wanted: Bearer | { kind: 'basic' } | undefined
  const tokens = new Map<Scope, Promise<Token>>()
  /** Those of them that have come. */
  const values = new Map<Scope, string>()
  const basic = init.credentials && basicHeader(init.credentials)
  const secrets = [init.credentials?.password, basic?.slice('Basic '.length)]
  const forget = (scope: Scope, token: Promise<Token>): void => {
    if (tokens.get(scope) === token) tokens.delete(scope)
  }
  const ask = async (bearer: Bearer, scope: Scope, signal: AbortSignal): Promise<Token> => {
    for (let known = tokens.get(scope); known !== undefined; known = tokens.get(scope)) {
      const usable = await known.catch(() => undefined)
      if (usable !== undefined && clock.monotonicMs() < usable.untilMs) return usable
      forget(scope, known)
    }
    const token = requestToken(bearer, basic, scope, components, signal)
    tokens.set(scope, token)
    for (const oldest of tokens.keys()) {
      if (tokens.size <= limits.registryTokens) break
      tokens.delete(oldest)
      values.delete(oldest)
    }
    token.catch(() => forget(scope, token))
    const { value } = await token
    values.set(scope, value)
    return token
  }
  return {
    async header(scope, signal) {
      if (wanted?.kind === 'basic') return basic
      if (wanted === undefined) return undefined
      return `Bearer ${(await ask(wanted, scope, signal)).value}`
    },
    learn(wwwAuthenticate, sent) {
      const before = wanted
      wanted = chooseChallenge(wwwAuthenticate, init.origin, basic !== undefined)
      if (wanted?.kind === 'bearer') {
        // A token may have expired early: one more is asked for instead of that one.
        for (const [scope, value] of values) {
          if (sent === `Bearer ${value}`) tokens.delete(scope)
        }
        return sent === undefined || before?.kind === 'bearer'
      }
      return wanted?.kind === 'basic' && sent !== basic
    },
    redact(text) {
      return [...secrets, ...values.values()].reduce<string>(
        (clean, secret) => (secret ? clean.replaceAll(secret, '***') : clean),
        text,
      )
    },
  }
}

function basicHeader({ username, password }: { username: string; password: string }): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
}

/** Bearer before Basic. Undefined when we can satisfy none. */
function chooseChallenge(header: string, origin: string, basic: boolean) {
  const challenges = parseChallenges(header)
  const bearer = challenges.find(({ scheme }) => scheme === 'bearer')?.parameters
  if (bearer !== undefined) {
    const realm = realmOf(bearer['realm'] ?? '', new URL(origin))
    const service = bearer['service']
    return { kind: 'bearer' as const, realm, ...(service !== undefined && { service }) }
  }
  if (!basic || !challenges.some(({ scheme }) => scheme === 'basic')) return undefined
  return { kind: 'basic' as const }
}

/** Where tokens are had, if our credentials may go there. */
function realmOf(text: string, registry: URL): URL {
  const realm = URL.canParse(text) ? new URL(text) : undefined
  if (realm === undefined || realm.username !== '' || realm.password !== '') {
    throw lasting('it names no place to get a token from')
  }
  const near =
    realm.hostname === registry.hostname ||
    (isInward(realm.hostname) && isInward(registry.hostname))
  const plain = realm.protocol === 'http:' && registry.protocol === 'http:' && near
  if (realm.protocol !== 'https:' && !plain) {
    throw lasting(`it wants a token from ${realm.host} without TLS, and credentials don't go there`)
  }
  return realm
}

async function requestToken(
  { realm, service }: Bearer,
  basic: string | undefined,
  scope: Scope,
  { clock, transport }: AuthorisationComponents,
  signal: AbortSignal,
): Promise<Token> {
  const url = new URL(realm)
  if (service !== undefined) url.searchParams.set('service', service)
  for (const part of scope.split(' ').filter(Boolean)) url.searchParams.append('scope', part)
  const askedMs = clock.monotonicMs()
  const headers = { accept: 'application/json', ...(basic && { authorization: basic }) }
  const answer = await transport.send({ method: 'GET', url, headers }, signal)
  const { status } = answer
  if (status !== 200) {
    await answer.discard()
    const passing = status === 429 || status >= 500
    const detail = `its token service ${url.host} answers ${status}`
    throw new Trouble(detail, { passing, status: status === 403 ? 401 : status })
  }
  const body = parsed(await readWhole(answer.body, tokenBytes))
  const value = Value.Check(tokenSchema, body) ? body.token || body.access_token : undefined
  if (value === undefined || !Value.Check(tokenSchema, body)) {
    throw lasting(`its token service ${url.host} answers no token`)
  }
  const seconds = Math.min(3_600, Math.max(1, body.expires_in ?? 60))
  // A tenth is kept back: a token that is on its way must not expire there.
  return { value, untilMs: askedMs + seconds * 900 }
}

function parsed(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch {
    return undefined
  }
}
