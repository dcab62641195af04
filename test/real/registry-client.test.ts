import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { createConnection, createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits, type Limits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { mediaTypes } from '../../images/format/media-types.ts'
import { createRegistryClient, type RegistryClient } from '../../images/registry/client.ts'
import { parseReference } from '../../images/registry/reference.ts'
import { resolveImage } from '../../images/registry/resolve.ts'
import type { RegistryAccess } from '../../images/sources/source.ts'
import { skopeo, startTestRegistry, type TestRegistry } from '../support/registry.ts'
import { startTestTokens } from '../support/registry-tokens.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

const never = new AbortController().signal
const credentials = { username: 'robot', password: 'a:pass word' }
let registry: TestRegistry

beforeAll(async () => {
  registry = await startTestRegistry({ tls: true, credentials })
})

afterAll(() => registry?.stop())

function connect(access: RegistryAccess, limits: Partial<Limits> = {}): RegistryClient {
  const components = { clock: systemClock, random: systemRandom, log: silentLog }
  const client = createRegistryClient(access, {
    ...components,
    limits: { ...defaultLimits, ...limits },
  })
  onTestFinished(() => client.close())
  return client
}

function blobOf(bytes: Buffer) {
  return {
    digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}`,
    sizeBytes: bytes.length,
    read: async (offset: number, length: number) => bytes.subarray(offset, offset + length),
  }
}

function addressOf(server: Server): string {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return `127.0.0.1:${address.port}`
}

async function collect(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(stream))
}

/** Sends a manifest of an image that has no blobs but its config. */
async function pushEmpty(client: RegistryClient, repository: string, config: object) {
  const blob = blobOf(Buffer.from(JSON.stringify(config)))
  await client.uploadBlob(repository, blob, never)
  const { digest, sizeBytes: size } = blob
  const text = JSON.stringify({
    schemaVersion: 2,
    mediaType: mediaTypes.manifest,
    config: { mediaType: mediaTypes.config, digest, size },
    layers: [],
  })
  const manifest = { mediaType: mediaTypes.manifest, bytes: Buffer.from(text) }
  return { manifest, digest: await client.putManifest(repository, 'one', manifest, never) }
}

describe('a registry with TLS by an authority of its own and a password', () => {
  test('takes blobs in pieces and gives them by ranges', async () => {
    const client = connect(registry.access, { registryPieceBytes: 1_000_000 })
    const bytes = randomBytes(3_500_000)
    const blob = blobOf(bytes)
    expect(await client.blobBytes('team/a', blob.digest, never)).toBeUndefined()
    const told: number[] = []
    await client.uploadBlob('team/a', blob, never, sent => told.push(sent))
    expect(told.at(-1)).toBe(bytes.length)
    expect(await client.blobBytes('team/a', blob.digest, never)).toBe(bytes.length)
    const range = { offsetBytes: 1_234_567, lengthBytes: 1_000_000 }
    const part = await collect(client.streamBlob('team/a', blob.digest, range, never))
    expect(part.equals(bytes.subarray(1_234_567, 2_234_567))).toBe(true)
    const whole = await client.readBlob('team/a', blob.digest, bytes.length, never)
    expect(whole.equals(bytes)).toBe(true)
    expect(statSync(registry.blobPath(blob.digest)).size).toBe(bytes.length)
    expect(await client.mountBlob('team/b', blob.digest, 'team/a', never)).toBe(true)
    expect(await client.blobBytes('team/b', blob.digest, never)).toBe(bytes.length)
    expect(await client.mountBlob('team/b', blobOf(randomBytes(9)).digest, 'x', never)).toBe(false)
  })

  test('takes manifests and lists tags', async () => {
    const client = connect(registry.access)
    const { manifest, digest } = await pushEmpty(client, 'team/tags', { a: 1 })
    for (const tag of ['two', 'three']) await client.putManifest('team/tags', tag, manifest, never)
    expect(await client.tags('team/tags', never)).toEqual(['one', 'three', 'two'])
    expect(await client.resolveTag('team/tags', 'two', never)).toBe(digest)
    const fetched = await client.fetchManifest('team/tags', digest, never)
    expect(fetched).toMatchObject({ digest, mediaType: manifest.mediaType })
    expect(await client.readManifest('team/tags', 'none', never)).toBeUndefined()
  })

  test('is not spoken to without its authority, and lets nobody else in', async () => {
    const { host, authorities = '' } = registry.access
    const ping = (access: RegistryAccess) => connect(access).ping(never)
    await expect(ping({ host, credentials })).rejects.toThrow(/certificate is not trusted/)
    await expect(ping({ host, authorities })).rejects.toMatchObject({ code: 'registryDenied' })
    const wrong = { ...credentials, password: 'wrong-password' }
    const asked = ping({ host, authorities, credentials: wrong })
    await expect(asked).rejects.toMatchObject({ code: 'registryDenied' })
    await expect(asked).rejects.not.toThrow(/wrong-password/)
    await ping({ host, authorities, credentials })
  })

  test('serves nothing that rots there', async () => {
    const client = connect(registry.access)
    const blob = blobOf(randomBytes(10_000))
    await client.uploadBlob('team/a', blob, never)
    writeFileSync(registry.blobPath(blob.digest), randomBytes(10_000))
    const reading = client.readBlob('team/a', blob.digest, 10_000, never)
    await expect(reading).rejects.toThrow(/another digest/)
  })
})

test('no blob is followed from https to http', async () => {
  const read = (name: string) => readFileSync(join(registry.folder, name))
  const seen: string[] = []
  const plain = createHttpServer((request, response) => {
    seen.push(request.url ?? '')
    response.end('plain')
  })
  const tls = { cert: read('certificate.pem'), key: read('key.pem') }
  const secure = createHttpsServer(tls, (_, response) => {
    response.writeHead(307, { location: `http://${addressOf(plain)}/x` }).end()
  })
  for (const server of [plain, secure]) {
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => void server.close())
  }
  const { authorities = '' } = registry.access
  const client = connect({ host: addressOf(secure), authorities })
  const reading = client.readBlob('a', blobOf(Buffer.from('plain')).digest, 9, never)
  await expect(reading).rejects.toThrow(/from https to http/)
  expect(seen).toEqual([])
})

describe('a registry that goes away', () => {
  test('in the middle of a piece gets the whole blob in the end', async () => {
    const there = await startTestRegistry()
    onTestFinished(() => there.stop())
    const [name = '', port] = there.host.split(':')
    let cuts = 0
    // A way to it that breaks once, when some of the second piece has gone.
    const way = createServer(inner => {
      const outer = createConnection(Number(port), name)
      let passedBytes = 0
      inner.on('data', bytes => {
        passedBytes += bytes.length
        if (passedBytes > 700_000 && cuts === 0) {
          cuts++
          inner.destroy()
        }
      })
      for (const socket of [inner, outer]) {
        socket.on('error', () => {})
        socket.on('close', () => void [inner, outer].map(each => each.destroy()))
      }
      inner.pipe(outer).pipe(inner)
    })
    way.listen(0, '127.0.0.1')
    await once(way, 'listening')
    onTestFinished(() => void way.close())
    const client = connect(
      { host: addressOf(way), plainHttp: true },
      { registryPieceBytes: 500_000 },
    )
    const bytes = randomBytes(2_000_000)
    await client.uploadBlob('team/a', blobOf(bytes), never)
    expect(cuts).toBe(1)
    const found = await client.readBlob('team/a', blobOf(bytes).digest, bytes.length, never)
    expect(found.equals(bytes)).toBe(true)
  })

  test('between two pieces gets the rest when it is back, and nothing twice', async () => {
    const shaky = await startTestRegistry()
    onTestFinished(() => shaky.stop())
    const client = connect(shaky.access, { registryPieceBytes: 500_000 })
    const bytes = randomBytes(2_000_000)
    const read: number[] = []
    await client.uploadBlob(
      'team/a',
      {
        ...blobOf(bytes),
        async read(offset, length) {
          read.push(offset)
          if (read.length === 3) await shaky.kill()
          if (read.length === 3) setTimeout(() => void shaky.start(), 100)
          return bytes.subarray(offset, offset + length)
        },
      },
      never,
    )
    expect(read).toEqual([0, 500_000, 1_000_000, 1_000_000, 1_500_000])
    const there = await client.readBlob('team/a', blobOf(bytes).digest, bytes.length, never)
    expect(there.equals(bytes)).toBe(true)
  })
})

test('a registry that wants tokens gets them for what is done', async () => {
  const tokens = await startTestTokens(credentials)
  onTestFinished(() => tokens.stop())
  const guarded = await startTestRegistry({ configuration: tokens.configuration })
  onTestFinished(() => guarded.stop())
  const client = connect({ ...guarded.access, credentials })
  await client.ping(never)
  const blob = blobOf(randomBytes(1_000))
  await client.uploadBlob('team/a', blob, never)
  expect(await client.mountBlob('team/b', blob.digest, 'team/a', never)).toBe(true)
  expect(await client.readBlob('team/b', blob.digest, 1_000, never)).toHaveLength(1_000)
  const scopes = tokens.asked.map(url => new URL(url, 'http://x').searchParams.getAll('scope'))
  expect(scopes).toEqual([
    [],
    ['repository:team/a:pull,push'],
    ['repository:team/b:pull,push', 'repository:team/a:pull'],
    ['repository:team/b:pull'],
  ])
  const stranger = connect(guarded.access)
  const asked = stranger.readBlob('team/b', blob.digest, 1_000, never)
  await expect(asked).rejects.toMatchObject({ code: 'registryDenied' })
})

test('what another program pushed is resolved for what it is', async () => {
  const plain = await startTestRegistry()
  onTestFinished(() => plain.stop())
  const folder = temporaryFolder()
  mkdirSync(join(folder, 'disk'))
  writeFileSync(join(folder, 'disk/one.img'), randomBytes(1_000))
  const target = `${plain.host}/team/other`
  const copy = ['copy', '--dest-tls-verify=false']
  await skopeo([...copy, `tarball:${join(folder, 'disk/one.img')}`, `docker://${target}:1`])
  const components = { client: connect(plain.access), limits: defaultLimits }
  const reference = parseReference(`${target}:1`)
  const resolved = await resolveImage(reference, { arch: 'x86_64' }, components, never)
  expect(resolved.kind).toBe('container')
  expect(resolved.reference).toMatch(/^127\.0\.0\.1:\d+\/team\/other@sha256:/)
  const other = resolveImage(reference, { arch: 'aarch64' }, components, never)
  await expect(other).rejects.toMatchObject({ code: 'registryArchMissing' })
})
