import { execFileSync } from 'node:child_process'
import { sign, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** A token service that a docker-registry believes. */
export interface TestTokens {
  /** For TestRegistryInit: the registry then wants tokens of this service. */
  configuration: Record<string, unknown>
  /** Path and query of each request for a token. */
  asked: string[]
  stop(): Promise<void>
}

/** Gives tokens for whatever is asked to who knows the password, and to others for nothing. */
export async function startTestTokens(credentials: {
  username: string
  password: string
}): Promise<TestTokens> {
  const folder = mkdtempSync(join(tmpdir(), 'macfleet-tokens-'))
  const files = ['-keyout', join(folder, 'key.pem'), '-out', join(folder, 'certificate.pem')]
  const fresh = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  const request = ['req', '-x509', ...fresh, ...files, '-days', '2', '-subj', '/CN=test tokens']
  execFileSync('openssl', request, { stdio: 'ignore' })
  const key = readFileSync(join(folder, 'key.pem'), 'utf8')
  const certificate = new X509Certificate(readFileSync(join(folder, 'certificate.pem')))
  const basic = Buffer.from(`${credentials.username}:${credentials.password}`).toString('base64')
  const asked: string[] = []
  const server = createServer((request, response) => {
    asked.push(request.url ?? '')
    const isKnown = request.headers.authorization === `Basic ${basic}`
    const { searchParams } = new URL(request.url ?? '', 'http://localhost')
    const access = isKnown ? searchParams.getAll('scope').map(accessOf) : []
    response.end(JSON.stringify({ token: makeToken(access, key, certificate), expires_in: 300 }))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const token = {
    realm: `http://127.0.0.1:${address.port}/token`,
    service: 'test registry',
    issuer: 'test tokens',
    rootcertbundle: join(folder, 'certificate.pem'),
  }
  return {
    configuration: { auth: { token } },
    asked,
    async stop() {
      server.closeAllConnections()
      server.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

function accessOf(scope: string): object {
  const [type, name, actions = ''] = scope.split(':')
  return { type, name, actions: actions.split(',') }
}

/** A JSON web token (RFC 7519) by ES256, with the certificate that it is signed by. */
function makeToken(access: object[], key: string, certificate: X509Certificate): string {
  const seconds = Math.floor(Date.now() / 1_000)
  const header = { typ: 'JWT', alg: 'ES256', x5c: [certificate.raw.toString('base64')] }
  const claims = {
    ...{ iss: 'test tokens', aud: 'test registry', sub: 'test', jti: '1', access },
    ...{ iat: seconds, nbf: seconds - 10, exp: seconds + 300 },
  }
  const text = [header, claims]
    .map(part => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.')
  const signature = sign('sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' })
  return `${text}.${signature.toString('base64url')}`
}
