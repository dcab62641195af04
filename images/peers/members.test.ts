import { connect, type SecureClientSessionOptions } from 'node:http2'
import { expect, onTestFinished, test } from 'vitest'
import {
  incompressible,
  makePeerAuthority,
  makePeerHost,
  makePeerImage,
  type PeerHost,
} from '../../test/support/peer-images.ts'
import {
  collect,
  readAll,
  type ServingHost,
  sourceOf,
  startServingHost,
} from '../../test/support/peer-server.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import type { LayerIndex } from '../layer-index.ts'

const MiB = 1024 * 1024
const signal = new AbortController().signal
const dayMs = 24 * 3600 * 1000

async function serveOne(changes: Parameters<typeof startServingHost>[1] = {}, sizeBytes = 4 * MiB) {
  const image = await makePeerImage(temporaryFolder(), [incompressible(sizeBytes)])
  const host = await startServingHost([image.served], changes)
  const { digest, config } = image.served
  const index = image.indexes[0] as LayerIndex
  return { host, image, digest, index, layer: config.layers[0]?.digest ?? '' }
}

/** What a client gets that speaks HTTP/2 and whatever certificate: a status, or why it got none. */
async function attempt(
  { server, authority }: ServingHost,
  digest: string,
  options: SecureClientSessionOptions,
): Promise<number | string> {
  return new Promise(resolve => {
    const session = connect(`https://127.0.0.1:${server.port}`, {
      ca: authority.pair.hosts.certificate,
      ...options,
    })
    onTestFinished(() => session.destroy())
    session.on('error', error => resolve(error.message))
    const stream = session.request({ ':path': `/v1/blobs/${digest.slice(7)}` })
    stream.on('response', headers => resolve(headers[':status'] ?? 0))
    stream.on('error', error => resolve(error.message))
    stream.on('close', () => resolve('closed'))
  })
}

const shown = ({ tls: { certificate, key } }: PeerHost) => ({ cert: certificate, key })

test('whoever is no member gets nothing, whatever certificate it shows', async () => {
  const { host, digest } = await serveOne()
  expect(await attempt(host, digest, shown(host.join('asking')))).toBe(200)
  const asked = host.questions()
  expect(await attempt(host, digest, {})).toMatch(/certificate required|closed|ECONNRESET/i)
  const foreign = makePeerHost(makePeerAuthority(), 'asking')
  expect(await attempt(host, digest, shown(foreign))).toMatch(/unknown ca|closed|ECONNRESET/i)
  const late = makePeerHost(host.authority, 'asking', { atMs: Date.now() - 2 * dayMs })
  expect(await attempt(host, digest, shown(late))).toMatch(/expired|closed|ECONNRESET/i)
  // TLS refuses those three; nobody asks whether they are members.
  expect(host.questions()).toBe(asked)
  const removed = makePeerHost(host.authority, 'removed')
  expect(await attempt(host, digest, shown(removed))).not.toBeTypeOf('number')
  expect(host.questions()).toBeGreaterThan(asked)
  const old = { ...shown(host.join('asking')), maxVersion: 'TLSv1.2' as const }
  expect(await attempt(host, digest, old)).toMatch(/version|closed|ECONNRESET/i)
})

test('a removed member is cut off in the middle of what it fetches', async () => {
  const { host, index, layer } = await serveOne({ bytesPerSecond: 4 * MiB }, 16 * MiB)
  const source = host.sourceFor(host.join('asking'))
  const opened = await source.openLayer(layer, index, signal)
  const come: number[] = []
  const fetching = (async () => {
    for await (const { number } of opened.fetch([...index.chunks.keys()], signal)) {
      come.push(number)
      if (come.length === 2) {
        host.members.clear()
        host.server.membersChanged()
      }
    }
  })()
  await expect(fetching).rejects.toMatchObject({ code: 'sourceFailed' })
  expect(come.length).toBeLessThan(6)
  await expect(opened.held(signal)).rejects.toMatchObject({ code: 'sourceFailed' })
})

test('a member is asked about once a while, not with each chunk', async () => {
  const { host, index, layer } = await serveOne({}, 16 * MiB)
  const opened = await host.sourceFor(host.join('asking')).openLayer(layer, index, signal)
  for (let round = 0; round < 4; round++) {
    await collect(opened.fetch([...index.chunks.keys()], signal))
  }
  expect(host.questions()).toBeLessThan(3)
})

test('only the host that was meant is spoken to', async () => {
  const { host, digest } = await serveOne()
  const asking = host.join('asking')
  const { name } = host.host
  const wanted = { name, port: host.server.port }
  const other = makePeerHost(host.authority, name).identity
  const failed = { code: 'sourceFailed' }
  // The same name, but another membership: that host was removed and joined again.
  const again = sourceOf({ ...wanted, identity: other }, asking)
  await expect(readAll(again.readBlob(digest, 10_000, signal))).rejects.toMatchObject(failed)
  const part = sourceOf({ ...wanted, identity: host.host.identity.slice(0, -1) }, asking)
  await expect(readAll(part.readBlob(digest, 10_000, signal))).rejects.toMatchObject(failed)
  // One that has the right name, signed by somebody else.
  const foreign = makePeerHost(makePeerAuthority(), 'asking')
  const source = sourceOf({ ...wanted, identity: host.host.identity }, foreign)
  await expect(readAll(source.readBlob(digest, 10_000, signal))).rejects.toMatchObject(failed)
})

test('certificates are renewed on both sides while chunks are on their way', async () => {
  const { host, index, layer } = await serveOne({ bytesPerSecond: 16 * MiB }, 16 * MiB)
  const asking = { ...host.join('asking') }
  const source = sourceOf({ ...host.host, port: host.server.port }, asking)
  const opened = await source.openLayer(layer, index, signal)
  const come: number[] = []
  for await (const { number } of opened.fetch([...index.chunks.keys()], signal)) {
    come.push(number)
    if (come.length !== 2) continue
    asking.tls = makePeerHost(host.authority, 'asking', asking).tls
    host.server.setTls(makePeerHost(host.authority, 'serving', host.host).tls)
    host.server.membersChanged()
  }
  expect(come).toHaveLength(index.chunks.length)
  const before = host.questions()
  expect((await collect(opened.fetch([0], signal))).numbers).toEqual([0])
  // It was shown anew: another connection.
  expect(host.questions()).toBe(before + 1)
})

test('an authority that is trusted no more lets nobody in', async () => {
  const { host, digest } = await serveOne()
  const asking = host.join('asking')
  const next = makePeerAuthority()
  host.server.setTls({ ...host.host.tls, authorities: next.pair.hosts.certificate })
  await expect
    .poll(() => attempt(host, digest, shown(asking)))
    .toMatch(/unknown ca|closed|ECONNRESET/i)
})
