import type { IncomingMessage, ServerResponse } from 'node:http'
import { describe, expect, test } from 'vitest'
import { digestOfBytes, fastComponents, startLyingServer } from '../../test/support/lying-server.ts'
import { createRegistryClient } from './client.ts'

const never = new AbortController().signal
const bytes = Buffer.alloc(500_000, 'a blob of some size')
const digest = digestOfBytes(bytes)
const blob = {
  digest,
  sizeBytes: bytes.length,
  read: async (offset: number, length: number) => bytes.subarray(offset, offset + length),
}

function clientOf(host: string, limits = {}) {
  const components = fastComponents({ registryPieceBytes: 100_000, ...limits })
  return createRegistryClient({ host, plainHttp: true }, components)
}

/** A registry that takes uploads, and does something else where `trick` says that it did. */
function uploadRegistry(
  trick: (request: IncomingMessage, response: ServerResponse, body: Buffer) => boolean,
) {
  const state = { stored: Buffer.alloc(0), begun: 0, done: false }
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const parts: Buffer[] = []
    try {
      for await (const part of request) parts.push(part)
    } catch {
      return
    }
    const body = Buffer.concat(parts)
    if (trick(request, response, body)) return
    const { method, url = '' } = request
    const location = `/v2/a/blobs/uploads/${state.begun}?state=${state.stored.length}`
    if (method === 'POST') {
      state.begun++
      state.stored = Buffer.alloc(0)
      response.writeHead(202, { location: `/v2/a/blobs/uploads/${state.begun}` }).end()
    } else if (method === 'PATCH') {
      state.stored = Buffer.concat([state.stored, body])
      response.writeHead(202, { location, range: `0-${state.stored.length - 1}` }).end()
    } else if (method === 'GET') {
      response.writeHead(204, { location, range: `0-${Math.max(0, state.stored.length - 1)}` })
      response.end()
    } else if (method === 'PUT') {
      state.stored = Buffer.concat([state.stored, body])
      state.done = url.includes(encodeURIComponent(digest))
      response.writeHead(201).end()
    } else {
      response.writeHead(state.done ? 200 : 404, { 'content-length': bytes.length }).end()
    }
  }
  return { state, answer: (...both: Parameters<typeof answer>) => void answer(...both) }
}

describe('an upload', () => {
  test('goes in pieces and tells how far it is', async () => {
    const { state, answer } = uploadRegistry(() => false)
    const { host, seen } = await startLyingServer(answer)
    const told: number[] = []
    await clientOf(host).uploadBlob('a', blob, never, sent => told.push(sent))
    expect(state.stored.equals(bytes) && state.done).toBe(true)
    const ranges = seen.map(({ headers }) => headers['content-range']).filter(Boolean)
    expect(ranges.slice(0, 2)).toEqual(['0-99999', '100000-199999'])
    expect(ranges.length).toBe(5)
    expect(told).toEqual(told.toSorted((one, other) => one - other))
    expect(told.at(-1)).toBe(bytes.length)
  })

  test('of a small or an empty blob goes at once', async () => {
    const { state, answer } = uploadRegistry(() => false)
    const { host, seen } = await startLyingServer(answer)
    const client = clientOf(host, { registryPieceBytes: 1_000_000 })
    await client.uploadBlob('a', blob, never)
    expect(seen.map(({ method }) => method)).toEqual(['POST', 'PUT'])
    expect(state.stored.equals(bytes)).toBe(true)
    const empty = { digest: digestOfBytes(''), sizeBytes: 0, read: blob.read }
    await client.uploadBlob('a', empty, never)
    expect(state.stored.length).toBe(0)
  })

  test('that was cut goes on with what has not arrived', async () => {
    let cut = false
    const { state, answer } = uploadRegistry((request, response, body) => {
      const isThird = request.headers['content-range']?.startsWith('200000') && !cut
      if (!isThird) return false
      cut = true
      // Some of it arrived, and nobody was told.
      state.stored = Buffer.concat([state.stored, body.subarray(0, 30_000)])
      response.destroy()
      return true
    })
    const { host, seen } = await startLyingServer(answer)
    await clientOf(host).uploadBlob('a', blob, never)
    expect(state.stored.equals(bytes) && state.begun === 1).toBe(true)
    const ranges = seen.map(({ headers }) => headers['content-range']).filter(Boolean)
    expect(ranges[3]).toBe('230000-329999')
  })

  test('that the registry has forgotten begins anew', async () => {
    let cut = false
    const { state, answer } = uploadRegistry((request, response) => {
      if (request.method === 'GET') {
        response.writeHead(404).end()
        return true
      }
      if (cut || !request.headers['content-range']?.startsWith('300000')) return false
      cut = true
      response.destroy()
      return true
    })
    const { host } = await startLyingServer(answer)
    await clientOf(host).uploadBlob('a', blob, never)
    expect(state).toMatchObject({ begun: 2, done: true })
    expect(state.stored.equals(bytes)).toBe(true)
  })

  test('whose last answer was lost is not sent again', async () => {
    const { state, answer } = uploadRegistry((request, response) => {
      if (request.method === 'GET') response.writeHead(404).end()
      if (request.method === 'PUT') {
        state.done = true
        response.destroy()
      }
      return ['GET', 'PUT'].includes(request.method ?? '')
    })
    const { host } = await startLyingServer(answer)
    await clientOf(host).uploadBlob('a', blob, never)
    expect(state.begun).toBe(1)
  })

  test('that gets nowhere is given up', async () => {
    const { state, answer } = uploadRegistry((request, response) => {
      if (request.method === 'PATCH') response.destroy()
      return request.method === 'PATCH'
    })
    const { host } = await startLyingServer(answer)
    const sending = clientOf(host).uploadBlob('a', blob, never)
    await expect(sending).rejects.toMatchObject({ code: 'sourceFailed' })
    expect(state.begun).toBeLessThan(7)
  })

  test('is not sent to another host', async () => {
    const other = await startLyingServer((_, response) => response.writeHead(202).end())
    for (const location of [`http://[::1]:1/x`, `//localhost/x`, '', 'http://']) {
      const { answer } = uploadRegistry((_, response) => {
        response.writeHead(202, { location }).end()
        return true
      })
      const { host } = await startLyingServer(answer)
      const sending = clientOf(host).uploadBlob('a', blob, never)
      await expect(sending).rejects.toThrow(/to be sent to|no place to send/)
    }
    expect(other.seen).toEqual([])
  })

  test('stays with the port that was said when its registry knows another', async () => {
    const { state, answer } = uploadRegistry((request, response) => {
      if (request.method !== 'POST') return false
      const location = 'https://127.0.0.1/v2/a/blobs/uploads/here'
      response.writeHead(202, { location }).end()
      return true
    })
    const { host } = await startLyingServer(answer)
    await clientOf(host).uploadBlob('a', blob, never)
    expect(state.stored.equals(bytes)).toBe(true)
  })

  test.each(['0-99', '0-900000', '0-0'])('is refused where %s is said to be there', async range => {
    const { answer } = uploadRegistry((request, response) => {
      const isLast = request.headers['content-range']?.startsWith('100000') ?? false
      if (isLast) response.writeHead(202, { location: '/x', range }).end()
      return isLast
    })
    const { host } = await startLyingServer(answer)
    const sending = clientOf(host).uploadBlob('a', blob, never)
    await expect(sending).rejects.toThrow(/other bytes arrived/)
  })

  test('ends with the signal', async () => {
    const stop = new AbortController()
    const reason = new Error('enough')
    const { answer } = uploadRegistry(request => {
      if (request.method === 'PATCH') stop.abort(reason)
      return request.method === 'PATCH'
    })
    const { host } = await startLyingServer(answer)
    await expect(clientOf(host).uploadBlob('a', blob, stop.signal)).rejects.toBe(reason)
  })
})
