import { once } from 'node:events'
import {
  type ClientHttp2Session,
  connect,
  createSecureServer,
  type ServerHttp2Stream,
} from 'node:http2'
import type { AddressInfo } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { zstdCompressSync } from 'node:zlib'
import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import {
  incompressible,
  makePeerAuthority,
  makePeerHost,
  makePeerImage,
  type PeerHost,
} from '../../test/support/peer-images.ts'
import { collect, readAll, sourceOf, startServingHost } from '../../test/support/peer-server.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import type { LayerIndex } from '../layer-index.ts'
import { startPeerService } from './peer-service.ts'
import { createServedImages } from './served-images.ts'
import { encodeHead, encodeRuns, paths } from './wire.ts'

const MiB = 1024 * 1024
const signal = new AbortController().signal

const tlsOf = ({ tls: { certificate, key, authorities } }: PeerHost) => ({
  ...{ cert: certificate, key, ca: authorities },
  checkServerIdentity: () => undefined,
})

function open(port: number, host: PeerHost, settings = {}): ClientHttp2Session {
  const session = connect(`https://127.0.0.1:${port}`, { ...tlsOf(host), settings })
  session.on('error', () => {})
  onTestFinished(() => session.destroy())
  return session
}

async function statusOf(session: ClientHttp2Session, path: string, body?: Buffer): Promise<number> {
  const stream = session.request({ ':path': path, ':method': body === undefined ? 'GET' : 'POST' })
  stream.on('error', () => {})
  stream.end(body)
  const [headers] = await once(stream, 'response')
  stream.close()
  return headers[':status']
}

test('requests that are none are refused, and others are answered on', async () => {
  const image = await makePeerImage(temporaryFolder(), [incompressible(2 * MiB)])
  const host = await startServingHost([image.served])
  const asking = host.join('asking')
  const layer = image.served.config.layers[0]?.digest ?? ''
  const session = open(host.server.port, asking)
  const chunks = paths.chunks(layer)
  for (const path of [
    '/',
    '/v1/blobs/../../etc/passwd',
    `${chunks}/`,
    paths.blob(`sha256:${'F'.repeat(64)}`),
  ]) {
    expect(await statusOf(session, path)).toBe(404)
  }
  expect(await statusOf(session, paths.blob(layer), Buffer.alloc(1))).toBe(404)
  expect(await statusOf(session, chunks)).toBe(404)
  const many = encodeRuns([...Array(defaultLimits.transferRequestChunks + 1).keys()])
  const bodies = [Buffer.alloc(0), Buffer.of(0x80), Buffer.of(0, 0), Buffer.of(0x80, 0, 1), many]
  for (const body of [...bodies, Buffer.alloc(16, 0xff), encodeRuns([2 ** 40])]) {
    expect(await statusOf(session, chunks, body)).toBe(400)
  }
  expect(await statusOf(session, chunks, Buffer.alloc(100_000, 1))).toBe(413)
  expect(await statusOf(session, chunks, encodeRuns([7]))).toBe(200)
  for (const noise of [Buffer.from('GET / HTTP/1.1\r\n\r\n'), incompressible(64 * 1024)]) {
    const socket = connectTls({ host: '127.0.0.1', port: host.server.port, ...tlsOf(asking) })
    socket.on('error', () => {})
    socket.write(noise)
    socket.resume()
    await new Promise(resolve => socket.once('close', resolve))
  }
  const opened = await host
    .sourceFor(asking)
    .openLayer(layer, image.indexes[0] as LayerIndex, signal)
  expect((await collect(opened.fetch([0, 1], signal))).numbers).toEqual([0, 1])
})

test('who reads nothing costs little memory, delays nobody, and is cut off', async () => {
  const image = await makePeerImage(temporaryFolder(), [incompressible(16 * MiB)])
  const authority = makePeerAuthority()
  const [serving, slow, other] = ['serving', 'slow', 'other'].map(name =>
    makePeerHost(authority, name),
  ) as [PeerHost, PeerHost, PeerHost]
  const limits = { ...defaultLimits, transferChunksPerHost: 4, transferStallMs: 800 }
  const images = createServedImages({ limits, onRot: () => {} })
  onTestFinished(() => images.close())
  images.set(image.served)
  const names = ['slow', 'other', 'slow']
  const findMember = async () => names.shift()
  const service = await startPeerService(
    { address: '127.0.0.1', port: 0, tls: serving.tls, limits },
    { clock: systemClock, log: silentLog, images, findMember },
  )
  onTestFinished(() => service.close())
  const layer = image.served.config.layers[0]?.digest ?? ''
  const index = image.indexes[0] as LayerIndex
  const all = [...index.chunks.keys()]
  const before = process.memoryUsage().arrayBuffers
  const session = open(service.port, slow)
  const streams = Array.from({ length: 12 }, () => {
    const stream = session.request({ ':path': paths.chunks(layer), ':method': 'POST' })
    stream.on('error', () => {})
    stream.end(encodeRuns(all))
    return stream
  })
  await Promise.all(streams.slice(0, 2).map(stream => once(stream, 'response')))
  const opened = await sourceOf({ ...serving, port: service.port }, other).openLayer(
    layer,
    index,
    signal,
  )
  let most = 0
  for await (const { release } of opened.fetch(all, signal)) {
    most = Math.max(most, process.memoryUsage().arrayBuffers - before)
    release?.()
  }
  // Without a bound it would be 12 x 16 MiB. Four chunks are sent, and the other host has its own.
  expect(most).toBeLessThan(24 * MiB)
  await expect.poll(() => streams.some(({ closed }) => closed), { timeout: 8_000 }).toBe(true)
})

test('chunks come no faster than they may, to one host and to all', async () => {
  const image = await makePeerImage(temporaryFolder(), [incompressible(6 * MiB)])
  const rates = { bytesPerSecond: 12 * MiB, bytesPerSecondPerHost: 8 * MiB }
  const host = await startServingHost([image.served], rates)
  const layer = image.served.config.layers[0]?.digest ?? ''
  const index = image.indexes[0] as LayerIndex
  const fetch = async (name: string) => {
    const opened = await host.sourceFor(host.join(name)).openLayer(layer, index, signal)
    await opened.held(signal)
    const began = performance.now()
    await collect(opened.fetch([...index.chunks.keys()], signal))
    return performance.now() - began
  }
  // 6 MiB at 8 MiB/s are 750 ms, of which 250 are saved up; 12 at 12 are 1000.
  expect(await fetch('one')).toBeGreaterThan(480)
  const [two, three] = await Promise.all([fetch('two'), fetch('three')])
  expect(Math.max(two, three)).toBeGreaterThan(730)
})

/** A member of the fleet that answers as a test says. */
async function startLiar(answer: (stream: ServerHttp2Stream) => void) {
  const authority = makePeerAuthority()
  const host = makePeerHost(authority, 'liar')
  const server = createSecureServer({ cert: host.tls.certificate, key: host.tls.key })
  server.on('stream', stream => {
    stream.on('error', () => {})
    answer(stream)
  })
  server.on('sessionError', () => {})
  const sessions = new Set<{ destroy(): void }>()
  server.on('session', session => sessions.add(session))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    for (const session of sessions) session.destroy()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  const limits = { ...defaultLimits, transferStallMs: 300 }
  return sourceOf({ ...host, port }, makePeerHost(authority, 'asking'), limits)
}

const index: LayerIndex = {
  virtualSizeBytes: 2 * MiB,
  chunks: [0, 1].map(at => ({
    digest: `sha256:${'0'.repeat(64)}`,
    extents: [{ offsetBytes: at * MiB, lengthBytes: 8192 }],
  })),
  zeros: [],
}
const digest = `sha256:${'1'.repeat(64)}`

function chunk(number: number, body: Buffer, packing: 'plain' | 'zstd' = 'plain'): Buffer {
  return Buffer.concat([encodeHead({ number, lengthBytes: body.length, packing }), body])
}

const plain = Buffer.alloc(8192, 1)
const lies: Record<string, Buffer> = {
  'a chunk that nobody asked for': chunk(7, plain),
  'a chunk of another length': chunk(0, Buffer.alloc(4096)),
  'a chunk twice': Buffer.concat([chunk(0, plain), chunk(0, plain)]),
  'an empty chunk': chunk(0, Buffer.alloc(0)),
  'a chunk as long as memory': Buffer.concat([
    encodeHead({ number: 0, lengthBytes: 0xffffffff, packing: 'plain' }),
  ]),
  'a bomb': chunk(0, zstdCompressSync(Buffer.alloc(512 * MiB)).subarray(0, 8191), 'zstd'),
  'a short frame': chunk(0, zstdCompressSync(Buffer.alloc(4096)), 'zstd'),
  'no frame': chunk(0, Buffer.alloc(100, 3), 'zstd'),
  'a packing that nobody knows': Buffer.concat([Buffer.of(0, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 1)]),
  'half a head': Buffer.alloc(5),
  'half a chunk': chunk(0, plain).subarray(0, 5_000),
}

test.each(Object.keys(lies))('a peer that sends %s has failed', async name => {
  const source = await startLiar(stream => {
    stream.respond({ ':status': 200 })
    stream.end(lies[name])
  })
  const layer = await source.openLayer(digest, index, signal)
  await expect(collect(layer.fetch([0, 1], signal))).rejects.toMatchObject({ code: 'sourceFailed' })
})

test('a peer that breaks off, stands still or never ends has failed', async () => {
  const flood = (stream: ServerHttp2Stream) => {
    stream.respond({ ':status': 200 })
    const more = () => {
      while (!stream.destroyed && stream.write(plain));
    }
    stream.on('drain', more)
    more()
  }
  const answers: ((stream: ServerHttp2Stream) => void)[] = [
    stream => stream.close(2),
    stream => stream.session?.destroy(),
    () => {},
    stream => stream.respond({ ':status': 200 }),
    stream => {
      stream.respond({ ':status': 200 })
      stream.write(Buffer.alloc(3), () => stream.session?.destroy())
    },
    flood,
    stream => stream.respond({ ':status': 500 }, { endStream: true }),
  ]
  for (const answer of answers) {
    const source = await startLiar(answer)
    const layer = await source.openLayer(digest, index, signal)
    const failed = { code: 'sourceFailed' }
    await expect(collect(layer.fetch([0, 1], signal))).rejects.toMatchObject(failed)
    await expect(layer.held(signal)).rejects.toMatchObject(failed)
    await expect(readAll(source.readBlob(digest, 100_000, signal))).rejects.toMatchObject(failed)
  }
})

test('who stops asking hears why, and the peer sends no more of it', async () => {
  let ended = false
  const source = await startLiar(stream => {
    stream.respond({ ':status': 200 })
    stream.write(chunk(0, plain))
    stream.on('close', () => {
      ended = true
    })
  })
  const layer = await source.openLayer(digest, index, signal)
  const stopping = new AbortController()
  const fetching = (async () => {
    for await (const _ of layer.fetch([0, 1], stopping.signal)) stopping.abort(new Error('enough'))
  })()
  await expect(fetching).rejects.toThrow('enough')
  await expect.poll(() => ended).toBe(true)
})

test('a host that is not there is not asked again at once', async () => {
  const authority = makePeerAuthority()
  const host = makePeerHost(authority, 'gone')
  const server = createSecureServer({ cert: host.tls.certificate, key: host.tls.key })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  const source = sourceOf({ ...host, port }, makePeerHost(authority, 'asking'))
  const read = () => readAll(source.readBlob(digest, 100, signal))
  await expect(read()).rejects.toThrow('ECONNREFUSED')
  await expect(read()).rejects.toThrow('a moment ago')
  await expect.poll(() => read().catch(error => error.message)).toContain('ECONNREFUSED')
})
