import type { IncomingMessage, ServerResponse } from 'node:http'
import { describe, expect, test } from 'vitest'
import { digestOfBytes, fastComponents, startLyingServer } from '../../test/support/lying-server.ts'
import { type ChunkLocation, encodeLocations, type Pack } from '../format/locations.ts'
import { encodeFrame } from '../format/packs.ts'
import type { LayerIndex } from '../layer-index.ts'
import type { FetchedChunk } from '../sources/source.ts'
import { createRegistrySource } from './registry-source.ts'

const never = new AbortController().signal
const chunkCount = 40
const layer = digestOfBytes('a layer')

/** A layer of small chunks in two packs, one behind the other's end. */
function makeLayer() {
  const plain = Array.from({ length: chunkCount }, (_, at) => Buffer.alloc(4096, `chunk ${at}`))
  const frames = plain.map(encodeFrame)
  const halves = [frames.slice(0, 20), frames.slice(20)]
  const packs = new Map<string, Buffer>()
  const places: ChunkLocation[] = []
  for (const half of halves) {
    const bytes = Buffer.concat(half)
    const pack: Pack = { digest: digestOfBytes(bytes), sizeBytes: bytes.length }
    packs.set(pack.digest, bytes)
    let offsetBytes = 0
    for (const { length } of half) {
      places.push({ pack, offsetBytes, lengthBytes: length })
      offsetBytes += length
    }
  }
  const index: LayerIndex = {
    virtualSizeBytes: chunkCount * 4096,
    chunks: plain.map((bytes, at) => ({
      digest: digestOfBytes(bytes),
      extents: [{ offsetBytes: at * 4096, lengthBytes: 4096 }],
    })),
    zeros: [],
  }
  return { plain, packs, index, places, locations: encodeLocations(places) }
}

/** An honest registry of blobs, but for what `spoil` does to bytes that go out. */
function blobServer(packs: Map<string, Buffer>, spoil = (bytes: Buffer): Buffer => bytes) {
  return (request: IncomingMessage, response: ServerResponse): void => {
    const whole = packs.get(request.url?.split('/').at(-1) ?? '')
    if (whole === undefined) {
      response.writeHead(404).end()
      return
    }
    const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? []
    const [first, last] = [Number(from ?? 0), to ? Number(to) : whole.length - 1]
    const headers = { 'content-range': `bytes ${first}-${last}/${whole.length}` }
    const bytes = spoil(Buffer.from(whole)).subarray(first, last + 1)
    response.writeHead(from === undefined ? 200 : 206, from === undefined ? {} : headers)
    response.end(bytes)
  }
}

function sourceOf(host: string, locations: Uint8Array, mirrors: string[] = [], limits = {}) {
  const components = fastComponents(limits)
  const access = { host, plainHttp: true, mirrors }
  const places = { [layer]: locations }
  const source = createRegistrySource(
    { kind: 'registry', name: 'registry', access, repository: 'team/a', locations: places },
    components,
  )
  return { source, lines: components.lines }
}

const all = Array.from({ length: chunkCount }, (_, at) => at)

function isAll(fetched: FetchedChunk[], plain: Buffer[]): boolean {
  const numbers = fetched.map(({ number }) => number).toSorted((one, other) => one - other)
  const isRight = fetched.every(({ number, bytes }) => plain[number]?.equals(bytes))
  return isRight && numbers.join() === all.join()
}

describe('chunks from a registry', () => {
  test('come by one request for neighbours', async () => {
    const { plain, packs, index, locations } = makeLayer()
    const { host, seen } = await startLyingServer(blobServer(packs))
    const { source } = sourceOf(host, locations)
    const opened = await source.openLayer(layer, index, never)
    expect(await opened.held(never)).toBeUndefined()
    const fetched = await Array.fromAsync(opened.fetch(all, never))
    expect(isAll(fetched, plain)).toBe(true)
    expect(seen.length).toBe(2)
    await source.close()
  })

  test('that are far apart come by as many requests, so many at once', async () => {
    const { packs, index, locations } = makeLayer()
    let [open, most] = [0, 0]
    const serve = blobServer(packs)
    const { host, seen } = await startLyingServer((request, response) => {
      most = Math.max(most, ++open)
      setTimeout(() => serve(request, response), 5)
      response.on('finish', () => open--)
    })
    const limits = { registryGapBytes: 0, registryRangesAtOnce: 3 }
    const { source } = sourceOf(host, locations, [], limits)
    const opened = await source.openLayer(layer, index, never)
    const odd = all.filter(number => number % 2 === 1)
    const fetched = await Array.fromAsync(opened.fetch(odd, never))
    expect(fetched.length).toBe(20)
    expect(seen.length).toBe(20)
    expect(most).toBeLessThanOrEqual(3)
  })

  test('that are damaged are left out', async () => {
    const { packs, index, places, locations } = makeLayer()
    const { offsetBytes = 0, pack } = places[7] ?? {}
    const { host } = await startLyingServer(
      blobServer(packs, bytes => {
        if (digestOfBytes(bytes) === pack?.digest) bytes.fill(0, offsetBytes, offsetBytes + 6)
        return bytes
      }),
    )
    const { source, lines } = sourceOf(host, locations)
    const opened = await source.openLayer(layer, index, never)
    const fetched = await Array.fromAsync(opened.fetch(all, never))
    const missing = all.filter(at => !fetched.some(({ number }) => number === at))
    expect(missing).toEqual([7])
    expect(lines.join()).toContain('damaged chunks')
  })

  test('take no more memory than a chunk, whatever a frame says', async () => {
    const { packs, index, places } = makeLayer()
    const bomb = encodeFrame(Buffer.alloc(64 * 1024 * 1024))
    const pack = { digest: digestOfBytes(bomb), sizeBytes: bomb.length }
    packs.set(pack.digest, bomb)
    const place = { pack, offsetBytes: 0, lengthBytes: bomb.length }
    const { host } = await startLyingServer(blobServer(packs))
    const { source } = sourceOf(host, encodeLocations([...places.slice(0, 39), place]))
    const opened = await source.openLayer(layer, index, never)
    const fetched = await Array.fromAsync(opened.fetch(all, never))
    expect(fetched.length).toBe(39)
  })

  test('of a pack that is not there are left out', async () => {
    const { packs, index, places, locations } = makeLayer()
    packs.delete(places[0]?.pack.digest ?? '')
    const { host } = await startLyingServer(blobServer(packs))
    const { source } = sourceOf(host, locations)
    const opened = await source.openLayer(layer, index, never)
    const fetched = await Array.fromAsync(opened.fetch(all, never))
    expect(fetched.map(({ number }) => number)).toEqual(all.slice(20))
  })

  test('end with an error when the registry has gone, and are asked for few times', async () => {
    const { index, locations } = makeLayer()
    const { host, seen } = await startLyingServer((_, response) => response.destroy())
    const { source } = sourceOf(host, locations)
    const opened = await source.openLayer(layer, index, never)
    const fetching = Array.fromAsync(opened.fetch(all, never))
    await expect(fetching).rejects.toMatchObject({ code: 'sourceFailed' })
    expect(seen.length).toBeLessThanOrEqual(6)
  })

  test('end with the signal, and when nobody takes them any more', async () => {
    const { packs, index, locations } = makeLayer()
    const closed: string[] = []
    const serve = blobServer(packs)
    const { host } = await startLyingServer((request, response) => {
      response.on('close', () => closed.push(request.url ?? ''))
      if (request.url?.endsWith([...packs.keys()][0] ?? '')) serve(request, response)
    })
    const { source } = sourceOf(host, locations)
    const opened = await source.openLayer(layer, index, never)
    for await (const _ of opened.fetch(all, never)) break
    await expect.poll(() => closed.length).toBe(2)
    const stop = new AbortController()
    const reason = new Error('enough')
    const fetching = (async () => {
      for await (const _ of opened.fetch(all, stop.signal)) stop.abort(reason)
    })()
    await expect(fetching).rejects.toBe(reason)
    await expect.poll(() => closed.length).toBe(4)
  })

  test('of a layer that it was not told of are not found', async () => {
    const { index, locations } = makeLayer()
    const { source } = sourceOf('127.0.0.1:1', locations)
    const opening = source.openLayer(digestOfBytes('other'), index, never)
    await expect(opening).rejects.toMatchObject({ code: 'notFound' })
  })
})

describe('a mirror', () => {
  test('is asked first, and the registry for nothing', async () => {
    const { plain, packs, index, locations } = makeLayer()
    const mirror = await startLyingServer(blobServer(packs))
    const { source } = sourceOf('127.0.0.1:1', locations, [`http://${mirror.host}`])
    const opened = await source.openLayer(layer, index, never)
    expect(isAll(await Array.fromAsync(opened.fetch(all, never)), plain)).toBe(true)
  })

  test('that serves rot is asked no more, and the registry gives what it spoiled', async () => {
    const { plain, packs, index, locations } = makeLayer()
    const other = Buffer.concat(Array(20).fill(encodeFrame(Buffer.alloc(4096, 'rot'))))
    const mirror = await startLyingServer(blobServer(packs, () => Buffer.concat([other, other])))
    const { host } = await startLyingServer(blobServer(packs))
    const { source, lines } = sourceOf(host, locations, [`http://${mirror.host}`])
    const opened = await source.openLayer(layer, index, never)
    expect(isAll(await Array.fromAsync(opened.fetch(all, never)), plain)).toBe(true)
    const askedBefore = mirror.seen.length
    expect(isAll(await Array.fromAsync(opened.fetch(all, never)), plain)).toBe(true)
    expect(mirror.seen.length).toBe(askedBefore)
    expect(lines.join()).toContain('wrong bytes')
  })

  test('that cuts blobs short or is gone only costs time', async () => {
    const { plain, packs, index, locations } = makeLayer()
    const short = await startLyingServer((_, response) => {
      response.writeHead(206, { 'content-range': 'bytes 0-99/1000', 'content-length': 100 })
      response.write('x', () => setImmediate(() => response.destroy()))
    })
    const { host } = await startLyingServer(blobServer(packs))
    const mirrors = ['http://127.0.0.1:1', `http://${short.host}`]
    const { source } = sourceOf(host, locations, mirrors)
    const opened = await source.openLayer(layer, index, never)
    expect(isAll(await Array.fromAsync(opened.fetch(all, never)), plain)).toBe(true)
  })
})

describe('a part that is had whole', () => {
  test('is bounded and compared with its digest', async () => {
    const blobs = new Map([[digestOfBytes('kernel'), Buffer.from('kernel')]])
    const { host } = await startLyingServer(blobServer(blobs))
    const { source } = sourceOf(host, Buffer.alloc(0))
    const read = (digest: string, limit: number) =>
      Array.fromAsync(source.readBlob(digest, limit, never))
    expect(Buffer.concat(await read(digestOfBytes('kernel'), 6)).toString()).toBe('kernel')
    await expect(read(digestOfBytes('kernel'), 5)).rejects.toMatchObject({ code: 'sourceFailed' })
    await expect(read(digestOfBytes('x'), 5)).rejects.toMatchObject({ code: 'notFound' })
    blobs.set(digestOfBytes('kernel'), Buffer.from('other!'))
    await expect(read(digestOfBytes('kernel'), 6)).rejects.toThrow(/another digest/)
  })
})
