import type { IncomingMessage, ServerResponse } from 'node:http'
import { describe, expect, test } from 'vitest'
import { fastComponents, startLyingServer } from '../../test/support/lying-server.ts'
import type { RegistryAccess } from '../sources/source.ts'
import { parseChallenges } from './challenge.ts'
import { createRegistryClient } from './client.ts'
import { guardedLookup, isInward } from './inward.ts'
import { createTransport } from './transport.ts'

const never = new AbortController().signal
const credentials = { username: 'robot', password: 'hunter2-secret' }
const basic = `Basic ${Buffer.from('robot:hunter2-secret').toString('base64')}`

function clientOf(host: string, more: Partial<RegistryAccess> = {}) {
  const components = fastComponents()
  const access = { host, plainHttp: true, credentials, ...more }
  return { client: createRegistryClient(access, components), lines: components.lines }
}

/** What a registry does that wants a token: only `valid` opens it. */
function tokenRegistry(realm: () => string, valid: () => string) {
  return (request: IncomingMessage, response: ServerResponse): void => {
    if (request.headers.authorization === `Bearer ${valid()}`) {
      response.end('{}')
      return
    }
    const wanted = `Bearer realm="${realm()}",service="registry",scope="repository:other:push"`
    response.writeHead(401, { 'www-authenticate': wanted }).end()
  }
}

describe('challenges', () => {
  test.each([
    ['Basic realm="a, b"', [{ scheme: 'basic', parameters: { realm: 'a, b' } }]],
    [
      'bearer Realm="https://x/\\"y", service=s , Basic',
      [
        { scheme: 'bearer', parameters: { realm: 'https://x/"y', service: 's' } },
        { scheme: 'basic', parameters: {} },
      ],
    ],
    ['', []],
    ['realm="no scheme"', []],
    ['Bearer realm="never closed', [{ scheme: 'bearer', parameters: {} }]],
    ['Bearer realm=a,realm=b', [{ scheme: 'bearer', parameters: { realm: 'a' } }]],
  ])('%s', (header, wanted) => {
    expect(parseChallenges(header)).toEqual(wanted)
  })
})

describe('a password', () => {
  test('is shown to a registry only when it asks for it', async () => {
    const { host, seen } = await startLyingServer((request, response) => {
      if (request.headers.authorization === basic) response.end('{}')
      else response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()
    })
    const { client } = clientOf(host)
    await client.ping(never)
    await client.ping(never)
    expect(seen.map(({ headers }) => headers.authorization)).toEqual([undefined, basic, basic])
  })

  test('that is wrong is told of, after one try', async () => {
    const { host, seen } = await startLyingServer((_, response) => {
      response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()
    })
    await expect(clientOf(host).client.ping(never)).rejects.toMatchObject({
      code: 'registryDenied',
    })
    expect(seen.length).toBe(2)
  })

  test('is not in what a registry says that repeats it', async () => {
    const { host } = await startLyingServer((request, response) => {
      const message = `you sent ${request.headers.authorization} as robot:hunter2-secret`
      const told = JSON.stringify({ errors: [{ code: 'DENIED', message }] })
      const status = request.headers.authorization === undefined ? 401 : 503
      response.writeHead(status, { 'www-authenticate': 'Basic' }).end(told)
    })
    const { client, lines } = clientOf(host)
    const error = await client.ping(never).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'sourceFailed' })
    const told = [String(error), JSON.stringify(error), (error as Error).stack, ...lines].join()
    expect(told).toContain('you sent Basic ***')
    expect(told).not.toMatch(/hunter2|cm9ib3Q6/)
  })
})

describe('a token', () => {
  test('is had for what we want to do, kept, and had anew when it has expired', async () => {
    let issued = 0
    const tokens = await startLyingServer((_, response) => {
      response.end(JSON.stringify({ token: `t${++issued}`, expires_in: 30 }))
    })
    const realm = `http://${tokens.host}/token?a=b`
    const { host } = await startLyingServer(
      tokenRegistry(
        () => realm,
        () => `t${issued}`,
      ),
    )
    const { client } = clientOf(host)
    await Promise.all([1, 2, 3].map(() => client.fetchManifest('team/a', 'b', never)))
    expect(tokens.seen.map(({ url, headers }) => [url, headers.authorization])).toEqual([
      ['/token?a=b&service=registry&scope=repository%3Ateam%2Fa%3Apull', basic],
    ])
    // 30 s of the hasty clock, of which a tenth is kept back.
    await new Promise(resolve => setTimeout(resolve, 300))
    await client.fetchManifest('team/a', 'b', never)
    expect(issued).toBe(2)
  })

  test('that the registry does not take any more is had anew, once', async () => {
    let issued = 0
    let valid = 't1'
    const tokens = await startLyingServer((_, response) => {
      response.end(JSON.stringify({ access_token: `t${++issued}`, expires_in: 100_000 }))
    })
    const realm = `http://${tokens.host}/`
    const { host } = await startLyingServer(
      tokenRegistry(
        () => realm,
        () => valid,
      ),
    )
    const { client } = clientOf(host)
    await client.fetchManifest('a', 'b', never)
    valid = 't2'
    await client.fetchManifest('a', 'b', never)
    expect(issued).toBe(2)
    valid = 'none'
    const asked = client.fetchManifest('a', 'b', never)
    await expect(asked).rejects.toMatchObject({ code: 'registryDenied' })
    expect(issued).toBeLessThan(6)
  })

  test('of a registry that lets anybody in needs no password', async () => {
    const tokens = await startLyingServer((_, response) => response.end('{"token":"t"}'))
    const realm = `http://${tokens.host}/`
    const { host } = await startLyingServer(
      tokenRegistry(
        () => realm,
        () => 't',
      ),
    )
    const components = fastComponents()
    const client = createRegistryClient({ host, plainHttp: true }, components)
    await client.fetchManifest('a', 'b', never)
    expect(tokens.seen[0]?.headers.authorization).toBeUndefined()
  })

  test.each([
    ['http://registry.example.test/token', /without TLS/],
    ['file:///etc/passwd', /without TLS/],
    ['https://user:secret@registry.example.test/', /names no place/],
    ['nonsense', /names no place/],
    ['', /names no place/],
  ])('is not asked of %s', async (realm, why) => {
    const { host } = await startLyingServer(
      tokenRegistry(
        () => realm,
        () => 'x',
      ),
    )
    await expect(clientOf(host).client.ping(never)).rejects.toThrow(why)
  })

  test.each([
    ['no JSON', 'token'],
    ['a header of its own', '{"token":"a\\r\\nx-evil: 1"}'],
    ['nothing', '{}'],
    ['another type', '{"token":1}'],
    ['far too much', JSON.stringify({ token: 'x'.repeat(100_000) })],
  ])('is not taken when it is %s', async (_, answer) => {
    const tokens = await startLyingServer((__, response) => response.end(answer))
    const realm = `http://${tokens.host}/`
    const { host } = await startLyingServer(
      tokenRegistry(
        () => realm,
        () => 'x',
      ),
    )
    await expect(clientOf(host).client.ping(never)).rejects.toMatchObject({ code: 'sourceFailed' })
    expect(tokens.seen.length).toBe(1)
  })

  test('service that denies the password is told of so', async () => {
    const tokens = await startLyingServer((_, response) => response.writeHead(401).end('hunter2'))
    const realm = `http://${tokens.host}/`
    const { host } = await startLyingServer(
      tokenRegistry(
        () => realm,
        () => 'x',
      ),
    )
    const asked = clientOf(host).client.ping(never)
    await expect(asked).rejects.toMatchObject({ code: 'registryDenied' })
    await expect(asked).rejects.not.toThrow(/hunter2/)
  })
})

describe('a redirect', () => {
  const body = Buffer.from('stored elsewhere')

  test('of a blob is followed, and its target is shown no credentials', async () => {
    const storage = await startLyingServer((_, response) => response.end(body))
    const { host, seen } = await startLyingServer((request, response) => {
      if (request.headers.authorization === undefined) {
        response.writeHead(401, { 'www-authenticate': 'Basic' }).end()
      } else {
        response.writeHead(307, { location: `http://${storage.host}/x?signature=s3cret` }).end()
      }
    })
    const { client } = clientOf(host)
    const pieces = await Array.fromAsync(client.streamBlob('a', 'sha256:b', {}, never))
    expect(Buffer.concat(pieces).equals(body)).toBe(true)
    expect(seen.at(-1)?.headers.authorization).toBe(basic)
    expect(storage.seen[0]?.headers.authorization).toBeUndefined()
    expect(JSON.stringify(storage.seen[0]?.headers)).not.toMatch(/cm9ib3Q6|hunter2/)
  })

  test('to a target that wants a password brings it none, and its query no error', async () => {
    const storage = await startLyingServer((_, response) => {
      response.writeHead(401, { 'www-authenticate': 'Basic realm="give it to me"' }).end()
    })
    const { host } = await startLyingServer((_, response) => {
      response.writeHead(307, { location: `http://${storage.host}/x?signature=s3cret` }).end()
    })
    const { client, lines } = clientOf(host)
    const reading = Array.fromAsync(client.streamBlob('a', 'sha256:b', {}, never))
    await expect(reading).rejects.toThrow(/answers 401/)
    await expect(reading).rejects.not.toThrow(/s3cret/)
    expect(lines.join()).not.toContain('s3cret')
    expect(storage.seen.some(({ headers }) => headers.authorization !== undefined)).toBe(false)
  })

  test.each([
    ['file:///etc/passwd', /to file/],
    ['gopher://x.example.test/', /to gopher/],
    ['http://a:b@x.example.test/', /credentials of its own/],
    ['', /nowhere/],
    ['/v2/a/blobs/again', /too many times/],
  ])('to %s is not followed', async (location, why) => {
    const { host } = await startLyingServer((_, response) => {
      response.writeHead(302, { location }).end()
    })
    const reading = Array.fromAsync(clientOf(host).client.streamBlob('a', 'sha256:b', {}, never))
    await expect(reading).rejects.toThrow(why)
  })

  test('of anything but a blob is not followed', async () => {
    const other = await startLyingServer((_, response) => response.end('{}'))
    const { host } = await startLyingServer((_, response) => {
      response.writeHead(302, { location: `http://${other.host}/` }).end()
    })
    const { client } = clientOf(host)
    await expect(client.fetchManifest('a', 'b', never)).rejects.toThrow(/answers 302/)
    expect(other.seen).toEqual([])
  })

  test('into this host is not followed from a registry that is elsewhere', async () => {
    const inside = await startLyingServer((_, response) => response.end('metadata'))
    const transport = createTransport({ hosts: ['registry.example.test'] }, fastComponents())
    const url = new URL(`http://${inside.host}/`)
    await expect(transport.send({ method: 'GET', url }, never)).rejects.toThrow(/inside this host/)
    expect(inside.seen).toEqual([])
    await transport.close()
  })
})

describe('inward addresses', () => {
  test.each([
    ['127.0.0.1', '127.9.9.9', '169.254.169.254', '0.0.0.0', '[::1]', '[fe80::1]', 'localhost'],
    ['[::ffff:127.0.0.1]', 'a.localhost', '::1'],
    ['[::ffff:169.254.169.254]', '[64:ff9b::169.254.169.254]', '[64:ff9b::127.0.0.1]'],
    ['[fd00:ec2::254]', '100.100.100.200', '168.63.129.16'],
  ])('are known: %s', (...hosts) => {
    expect(hosts.filter(host => !isInward(host))).toEqual([])
  })

  test('do not take in others', () => {
    const others = [
      '10.0.0.1',
      '[64:ff9b::10.0.0.1]',
      '100.100.100.1',
      '192.168.1.1',
      '[2001:db8::1]',
      'registry.example.test',
    ]
    expect(others.filter(isInward)).toEqual([])
  })

  test.each([true, false])('are left out of what a name stands for', async all => {
    const looked = new Promise((resolve, reject) => {
      guardedLookup('localhost', { all }, (error, address) =>
        error ? reject(error) : resolve(address),
      )
    })
    await expect(looked).rejects.toMatchObject({ code: 'ENOTFOUND' })
  })
})
