import type { ServerResponse } from 'node:http'
import { describe, expect, test } from 'vitest'
import { digestOfBytes, fastComponents, startLyingServer } from '../../test/support/lying-server.ts'
import type { RegistryAccess } from '../sources/source.ts'
import { createRegistryClient } from './client.ts'

const never = new AbortController().signal
const blob = Buffer.alloc(300_000, 'macfleet')
const digest = digestOfBytes(blob)
const manifest = Buffer.from('{"schemaVersion":2}')

function clientOf(host: string, more: Partial<RegistryAccess> = {}, limits = {}) {
  const components = fastComponents(limits)
  const client = createRegistryClient({ host, plainHttp: true, ...more }, components)
  return { client, lines: components.lines }
}

async function collect(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(stream))
}

function sendRange(response: ServerResponse, range: string | undefined, upTo = blob.length): void {
  const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(range ?? '') ?? ['', '0', '']
  const last = to === '' ? blob.length - 1 : Number(to)
  const bytes = blob.subarray(Number(from), last + 1)
  const headers = {
    'content-length': bytes.length,
    ...(range && { 'content-range': `bytes ${from}-${last}/${blob.length}` }),
  }
  response.writeHead(range ? 206 : 200, headers)
  if (bytes.length <= upTo) response.end(bytes)
  else response.write(bytes.subarray(0, upTo), () => setImmediate(() => response.destroy()))
}

describe('a manifest', () => {
  test('is refused when it is not what was asked for by digest', async () => {
    const { host } = await startLyingServer((_, response) => response.end('{"other":1}'))
    const asked = clientOf(host).client.fetchManifest('a', digestOfBytes(manifest), never)
    await expect(asked).rejects.toMatchObject({ code: 'sourceFailed' })
    await expect(asked).rejects.toThrow(digestOfBytes('{"other":1}'))
  })

  test('is refused when its registry calls it by a digest that it has not', async () => {
    const { host } = await startLyingServer((_, response) => {
      response.setHeader('docker-content-digest', digestOfBytes('something else'))
      response.end(manifest)
    })
    const asked = clientOf(host).client.fetchManifest('a', 'latest', never)
    await expect(asked).rejects.toThrow(/has the digest sha256:/)
  })

  test('without an end is not read to the end', async () => {
    let sentBytes = 0
    const { host } = await startLyingServer((_, response) => {
      const more = (): void => {
        while (!response.destroyed && response.write(blob)) sentBytes += blob.length
      }
      response.on('drain', more)
      more()
    })
    const { client } = clientOf(host, {}, { registryManifestBytes: 1_000_000 })
    await expect(client.fetchManifest('a', 'b', never)).rejects.toThrow(/more than 1000000 bytes/)
    expect(sentBytes).toBeLessThan(20_000_000)
  })

  test('that is not there is not found, once', async () => {
    const { host, seen } = await startLyingServer((_, response) => response.writeHead(404).end())
    const { client } = clientOf(host)
    await expect(client.fetchManifest('a', 'b', never)).rejects.toMatchObject({ code: 'notFound' })
    expect(await client.readManifest('a', 'b', never)).toBeUndefined()
    expect(seen.length).toBe(2)
  })
})

describe('a blob', () => {
  test('that is cut at 99 % goes on where it was cut', async () => {
    let asked = 0
    const { host, seen } = await startLyingServer((request, response) => {
      sendRange(response, request.headers.range, asked++ === 0 ? 297_000 : blob.length)
    })
    const { client } = clientOf(host)
    expect((await collect(client.streamBlob('a', digest, {}, never))).equals(blob)).toBe(true)
    const again = Number(/\d+/.exec(seen[1]?.headers.range ?? '')?.[0])
    expect(again).toBeGreaterThan(200_000)
    expect(seen.length).toBe(2)
  })

  test('that never comes to its end is given up, with the reason', async () => {
    const { host, seen } = await startLyingServer((request, response) => {
      sendRange(response, request.headers.range, 10)
    })
    const { client } = clientOf(host)
    const reading = collect(client.streamBlob('a', digest, {}, never))
    await expect(reading).rejects.toThrow(/registry 127.* the connection was cut/)
    expect(seen.length).toBeLessThan(10)
  })

  test('is cut out where the registry knows no ranges', async () => {
    const { host } = await startLyingServer((_, response) => response.end(blob))
    const range = { offsetBytes: 100_001, lengthBytes: 50_000 }
    const part = await collect(clientOf(host).client.streamBlob('a', digest, range, never))
    expect(part.equals(blob.subarray(100_001, 150_001))).toBe(true)
  })

  test('comes in as many answers as its registry likes', async () => {
    const { host, seen } = await startLyingServer((request, response) => {
      const from = Number(/\d+/.exec(request.headers.range ?? '')?.[0])
      sendRange(response, `bytes=${from}-${Math.min(from + 19_999, 99_999)}`)
    })
    const range = { offsetBytes: 10_000, lengthBytes: 90_000 }
    const { client } = clientOf(host)
    const part = await collect(client.streamBlob('a', digest, range, never))
    expect(part.equals(blob.subarray(10_000, 100_000))).toBe(true)
    expect(seen.length).toBe(5)
  })

  test.each([
    ['other bytes', { 'content-range': 'bytes 5-9/300000' }],
    ['no word of which', {}],
    ['several ranges', { 'content-type': 'multipart/byteranges; boundary=x' }],
  ])('is refused when %s come than were asked for', async (_, headers) => {
    const { host } = await startLyingServer((__, response) => {
      response.writeHead(206, headers).end(blob.subarray(0, 5))
    })
    const range = { offsetBytes: 0, lengthBytes: 5 }
    const reading = collect(clientOf(host).client.streamBlob('a', digest, range, never))
    await expect(reading).rejects.toThrow(/other bytes/)
  })

  test('stops where it was to stop, whatever comes behind', async () => {
    const { host } = await startLyingServer((_, response) => {
      response.writeHead(206, { 'content-range': 'bytes 0-299999/300000' }).write(blob)
    })
    const range = { offsetBytes: 0, lengthBytes: 5 }
    const part = await collect(clientOf(host).client.streamBlob('a', digest, range, never))
    expect(part.equals(blob.subarray(0, 5))).toBe(true)
  })

  test('as a whole is compared with its digest, and bounded', async () => {
    const { host } = await startLyingServer((_, response) => response.end('rot'))
    const { client } = clientOf(host)
    await expect(client.readBlob('a', digest, 100, never)).rejects.toThrow(/another digest/)
    await expect(client.readBlob('a', digest, 2, never)).rejects.toThrow(/more than 2 bytes/)
  })

  test('that drips is given up', async () => {
    const { host } = await startLyingServer((_, response) => {
      const timer = setInterval(() => response.write('x'), 5)
      response.on('close', () => clearInterval(timer))
    })
    const { client } = clientOf(host, {}, { registryTries: 1, registryProgressMs: 5_000 })
    const reading = collect(client.streamBlob('a', digest, {}, never))
    await expect(reading).rejects.toThrow(/stalls/)
  })

  test('of which nothing comes is given up', async () => {
    const { host } = await startLyingServer(() => {})
    const { client } = clientOf(host, {}, { registryTries: 1, registryAnswerMs: 3_000 })
    const reading = collect(client.streamBlob('a', digest, {}, never))
    await expect(reading).rejects.toThrow(/says nothing for 3000 ms/)
  })

  test('ends with the signal, and its connection too', async () => {
    const { promise: isClosed, resolve: close } = Promise.withResolvers<void>()
    const { host } = await startLyingServer((_, response) => {
      response.on('close', close)
      response.write(blob)
    })
    const stop = new AbortController()
    const reason = new Error('enough')
    const { client } = clientOf(host)
    const reading = (async () => {
      for await (const _ of client.streamBlob('a', digest, {}, stop.signal)) stop.abort(reason)
    })()
    await expect(reading).rejects.toBe(reason)
    await isClosed
  })
})

describe('trouble', () => {
  test('that passes is waited for', async () => {
    let asked = 0
    const { host } = await startLyingServer((_, response) => {
      response.writeHead([500, 503, 429, 502][asked++] ?? 200).end(manifest)
    })
    const { bytes } = await clientOf(host).client.fetchManifest('a', 'b', never)
    expect(bytes.equals(manifest)).toBe(true)
    expect(asked).toBe(5)
  })

  test('that stays is told of after a few tries', async () => {
    const { host, seen } = await startLyingServer((_, response) => {
      response.writeHead(500).end('{"errors":[{"code":"UNKNOWN","message":"no\\u0007 disk"}]}')
    })
    const asked = clientOf(host).client.fetchManifest('a', 'b', never)
    await expect(asked).rejects.toThrow(/it answers 500 \(UNKNOWN: no {2}disk\)/)
    expect(seen.length).toBe(6)
    await expect(clientOf(host).client.resolveTag('a', 'b', never)).rejects.toThrow(/500/)
    expect(seen.length).toBe(12)
  })

  test('by too many requests holds back all of them as long as was asked for', async () => {
    const times: number[] = []
    const { host } = await startLyingServer((_, response) => {
      times.push(performance.now())
      const isFirst = times.length === 1
      response.writeHead(isFirst ? 429 : 200, { 'retry-after': '20' }).end(manifest)
    })
    const { client } = clientOf(host)
    const first = client.fetchManifest('a', 'b', never)
    await expect.poll(() => times.length).toBe(1)
    await new Promise(resolve => setTimeout(resolve, 50))
    await Promise.all([first, client.fetchManifest('a', 'c', never)])
    const [began = 0, ...later] = times
    // Twenty seconds of the hasty clock.
    for (const time of later) expect(time - began).toBeGreaterThan(190)
  })

  test('that would take hours is told of at once', async () => {
    const { host, seen } = await startLyingServer((_, response) => {
      response.writeHead(429, { 'retry-after': '7200' }).end()
    })
    const asked = clientOf(host).client.fetchManifest('a', 'b', never)
    await expect(asked).rejects.toThrow(/asks us to wait 7200 s/)
    expect(seen.length).toBe(1)
  })

  test('is told of when nobody is there', async () => {
    const { client } = clientOf('127.0.0.1:1')
    await expect(client.ping(never)).rejects.toThrow(/registry 127.0.0.1:1: nobody listens there/)
  })

  test('that only a user named is not asked inside this host', async () => {
    const { host, seen } = await startLyingServer((_, response) => response.end('metadata'))
    const { client } = clientOf(host, { outwardOnly: true })
    await expect(client.ping(never)).rejects.toThrow(/inside this host/)
    const { client: named } = clientOf(`localhost:${host.split(':')[1]}`, { outwardOnly: true })
    await expect(named.ping(never)).rejects.toThrow(/inside this host/)
    expect(seen).toEqual([])
  })

  test('is told of when it does not speak TLS', async () => {
    const { host } = await startLyingServer((_, response) => response.end())
    const { client } = clientOf(host, { plainHttp: false })
    await expect(client.ping(never)).rejects.toThrow(/does not speak TLS/)
  })
})

describe('a tag', () => {
  const digestOf = digestOfBytes(manifest)
  const tagged = (bytes: Buffer) =>
    startLyingServer((request, response) => {
      response.setHeader('docker-content-digest', digestOfBytes(bytes))
      if (request.method === 'GET') response.end(bytes)
      else response.end()
    })

  test("is the registry's to explain, and what it stands for comes from a mirror", async () => {
    const [mirror, origin] = await Promise.all([tagged(manifest), tagged(manifest)])
    const { client } = clientOf(origin.host, { mirrors: [`http://${mirror.host}`] })
    expect(await client.fetchManifest('a', 'b', never)).toMatchObject({ digest: digestOf })
    expect(origin.seen.map(({ method }) => method)).toEqual(['HEAD'])
    expect(mirror.seen.map(({ url }) => url)).toEqual([`/v2/a/manifests/${digestOf}`])
  })

  test('that a mirror knows in an older form is not believed', async () => {
    const [mirror, origin] = await Promise.all([tagged(Buffer.from('{"old":1}')), tagged(manifest)])
    const { client } = clientOf(origin.host, { mirrors: [`http://${mirror.host}`] })
    expect(await client.fetchManifest('a', 'b', never)).toMatchObject({ digest: digestOf })
  })

  test('is asked of a mirror while the registry can not be reached', async () => {
    const mirror = await tagged(manifest)
    const { client, lines } = clientOf('127.0.0.1:1', { mirrors: [`http://${mirror.host}`] })
    expect(await client.fetchManifest('a', 'b', never)).toMatchObject({ digest: digestOf })
    expect(lines.join()).toContain('of mirrors alone')
  })

  test('that the registry lacks is not asked of a mirror', async () => {
    const mirror = await tagged(manifest)
    const { host } = await startLyingServer((_, response) => response.writeHead(404).end())
    const { client } = clientOf(host, { mirrors: [`http://${mirror.host}`] })
    await expect(client.fetchManifest('a', 'b', never)).rejects.toMatchObject({ code: 'notFound' })
    expect(mirror.seen).toEqual([])
  })

  test('is never shown to a mirror with the password of the registry', async () => {
    const mirror = await startLyingServer((_, response) => {
      response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()
    })
    const origin = await tagged(manifest)
    const credentials = { username: 'robot', password: 'secret' }
    const mirrors = [`http://${mirror.host}`]
    const { client } = clientOf(origin.host, { mirrors, credentials })
    expect(await client.fetchManifest('a', 'b', never)).toMatchObject({ digest: digestOf })
    expect(mirror.seen.map(({ headers }) => headers.authorization)).toEqual([undefined])
  })
})

describe('tags', () => {
  test('are read page by page', async () => {
    const { host } = await startLyingServer((request, response) => {
      const isFirst = !request.url?.includes('last')
      if (isFirst) response.setHeader('link', '</v2/a/tags/list?last=b&n=1000>; rel="next"')
      response.end(JSON.stringify({ tags: isFirst ? ['a', 'b', 'no/tag'] : ['c'] }))
    })
    expect(await clientOf(host).client.tags('a', never)).toEqual(['a', 'b', 'c'])
  })

  test('without an end, or of another host, are refused', async () => {
    let page = 0
    const endless = await startLyingServer((_, response) => {
      response.setHeader('link', '</v2/a/tags/list?last=b>; rel="next"')
      response.end(JSON.stringify({ tags: Array.from({ length: 100 }, () => `t${page++}`) }))
    })
    const { client } = clientOf(endless.host, {}, { registryTags: 1_000 })
    await expect(client.tags('a', never)).rejects.toThrow(/more than 1000 tags/)
    const elsewhere = await startLyingServer((_, response) => {
      response.setHeader('link', `<http://${endless.host}/v2/>; rel="next"`)
      response.end('{"tags":["a"]}')
    })
    const asked = clientOf(elsewhere.host).client.tags('a', never)
    await expect(asked).rejects.toThrow(/sends us on to 127/)
  })
})
