import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import { Duplex, PassThrough, Readable } from 'node:stream'
import { afterEach, describe, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { failure } from '../../base/errors.ts'
import { machineBody, machines, startTestApi, type TestApi } from '../../test/support/api.ts'
import { channels } from './channel-framing.ts'
import type { ExecSession, Subresources } from './subresources.ts'

let api: TestApi
afterEach(() => api.close())

const images = '/apis/macfleet.dev/v1/namespaces/a/images'

async function start(subresources: Partial<Subresources> = {}): Promise<void> {
  api = await startTestApi({ subresources, limits: { webSocketBacklogBytes: 100_000 } })
  await api.request('POST', machines('a'), { body: machineBody('m') })
  await api.request('POST', images, { body: { metadata: { name: 'i' }, spec: {} } })
}

interface Session {
  socket: WebSocket
  /** Everything received. */
  messages: Buffer[]
  closed: Promise<{ code: number; reason: string }>
}

async function connect(path: string, protocols: string[] = []): Promise<Session> {
  const socket = new WebSocket(`ws+unix://${api.socketPath}:${machines('a')}/m/${path}`, protocols)
  const messages: Buffer[] = []
  socket.on('message', (data: Buffer) => messages.push(data))
  const closed = new Promise<{ code: number; reason: string }>(resolve => {
    socket.on('close', (code, reason) => resolve({ code, reason: reason.toString() }))
  })
  await once(socket, 'open')
  return { socket, messages, closed }
}

/** The HTTP code with which an upgrade was refused, and the Status. */
function refusal(path: string): Promise<{ code: number; text: string }> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws+unix://${api.socketPath}:${machines('a')}/m/${path}`)
    socket.on('open', () => reject(new Error('was not refused')))
    socket.on('error', () => {})
    socket.on('unexpected-response', async (_, response) => {
      const chunks: Buffer[] = []
      for await (const chunk of response) chunks.push(chunk)
      resolve({ code: response.statusCode ?? 0, text: Buffer.concat(chunks).toString() })
    })
  })
}

const textOf = (messages: Buffer[], channel: number) =>
  Buffer.concat(messages.filter(one => one[0] === channel).map(one => one.subarray(1))).toString()

describe('console', () => {
  test('carries bytes both ways, and ends with either side', async () => {
    let line: Duplex | undefined
    await start({
      async openConsole() {
        line = new PassThrough()
        return line
      },
    })
    const first = await connect('console')
    first.socket.send(Buffer.from([0, 255, 10]))
    await expect.poll(() => Buffer.concat(first.messages)).toEqual(Buffer.from([0, 255, 10]))
    line?.end()
    expect(await first.closed).toEqual({ code: 1000, reason: '' })
    const second = await connect('console')
    second.socket.terminate()
    await expect.poll(() => line?.destroyed).toBe(true)
    const third = await connect('console')
    line?.destroy(failure('consoleUnavailable', { detail: 'the guest ended' }))
    expect(await third.closed).toMatchObject({
      code: 1011,
      reason: expect.stringContaining('the guest ended'),
    })
  })

  test('moves much at the speed of the slower side', async () => {
    const total = 8 * 1024 * 1024
    let produced = 0
    let received = 0
    await start({
      async openConsole() {
        return new Duplex({
          read() {
            if (produced >= total) return void this.push(null)
            produced += 65_536
            this.push(Buffer.alloc(65_536, 1))
          },
          write(_chunk, _encoding, done) {
            done()
          },
        })
      },
    })
    const socket = new WebSocket(`ws+unix://${api.socketPath}:${machines('a')}/m/console`)
    await once(socket, 'open')
    socket.pause()
    let before = -1
    await expect
      .poll(
        () => {
          const isSteady = produced === before
          before = produced
          return isSteady
        },
        { interval: 100 },
      )
      .toBe(true)
    expect(produced).toBeLessThan(total / 2)
    socket.on('message', (data: Buffer) => {
      received += data.length
    })
    socket.resume()
    await once(socket, 'close')
    expect(received).toBe(total)
  })

  test('is refused before the upgrade', async () => {
    await start({
      async openConsole() {
        throw failure('consoleUnavailable', { detail: 'it is stopped' })
      },
    })
    expect(await refusal('console')).toMatchObject({
      code: 503,
      text: expect.stringContaining('it is stopped'),
    })
    expect((await api.request('GET', `${machines('a')}/m`)).code).toBe(200)
  })

  test('is the only thing, with exec, that takes an upgrade', async () => {
    await start()
    expect(await refusal('log')).toMatchObject({ code: 400 })
    expect(await refusal('nothing/here')).toMatchObject({ code: 404 })
    expect(await refusal('../m2/console')).toMatchObject({ code: 404 })
  })

  test('ends with the server, though the client does not answer', async () => {
    await start()
    const session = await connect('console')
    session.socket.pause()
    await api.close()
    session.socket.terminate()
    await start()
  })

  test('is let go when the upgrade itself fails', async () => {
    const line = new PassThrough()
    await start({ openConsole: async () => line })
    const request = httpRequest({
      socketPath: api.socketPath,
      path: `${machines('a')}/m/console`,
      headers: { connection: 'upgrade', upgrade: 'websocket', 'sec-websocket-key': 'nonsense' },
    })
    request.on('error', () => {})
    request.on('response', response => response.resume())
    request.end()
    await expect.poll(() => line.destroyed).toBe(true)
  })
})

describe('exec', () => {
  const v5 = ['v5.channel.k8s.io']

  test('carries input, output, sizes and the exit code', async () => {
    const sizes: unknown[] = []
    let asked: unknown
    await start({
      async prepareCommand(_, { command, tty, stdin }) {
        asked = { command, tty, stdin }
        return async session => {
          session.onResize(size => sizes.push(size))
          for await (const chunk of session.input) await session.send('stdout', chunk)
          await session.send('stderr', Buffer.from('done'))
          return { exitCode: 3 }
        }
      },
    })
    const query = 'exec?command=sh&command=-c&command=a%20b&stdin=true&tty=true'
    const session = await connect(query, [...v5, 'v4.channel.k8s.io'])
    expect(session.socket.protocol).toBe('v5.channel.k8s.io')
    session.socket.send(Buffer.from('\u0004{"Width":80,"Height":24}'))
    session.socket.send(Buffer.from('\u0004{"Width":-1,"Height":"x"}'))
    session.socket.send(Buffer.from('\u0000hello '))
    session.socket.send(Buffer.from('\u0000world'))
    session.socket.send(Buffer.alloc(0))
    session.socket.send(Buffer.from([channels.close, channels.stdin]))
    expect(await session.closed).toMatchObject({ code: 1000 })
    expect(asked).toEqual({ command: ['sh', '-c', 'a b'], tty: true, stdin: true })
    expect(sizes).toEqual([{ columns: 80, rows: 24 }])
    expect(textOf(session.messages, channels.stdout)).toBe('hello world')
    expect(textOf(session.messages, channels.stderr)).toBe('done')
    expect(JSON.parse(textOf(session.messages, channels.status))).toMatchObject({
      status: 'Failure',
      reason: 'NonZeroExitCode',
      details: { causes: [{ reason: 'ExitCode', message: '3' }] },
    })
  })

  test('lets a client wait whose input is not read, and loses nothing of it', async () => {
    let session: ExecSession | undefined
    const reading = Promise.withResolvers<void>()
    let received = 0
    await start({
      async prepareCommand() {
        return async given => {
          session = given
          await reading.promise
          for await (const chunk of given.input) received += chunk.length
          return { exitCode: 0 }
        }
      },
    })
    const { socket, closed } = await connect('exec?command=cat&stdin=true', v5)
    const block = Buffer.alloc(65_536)
    for (let sent = 0; sent < 200; sent++) socket.send(block)
    // The server stopped reading: what is left stays with the client.
    let before = -1
    const isSteady = () => {
      const isSame = socket.bufferedAmount === before
      before = socket.bufferedAmount
      return isSame
    }
    await expect.poll(isSteady, { interval: 100 }).toBe(true)
    expect(socket.bufferedAmount).toBeGreaterThan(100 * block.length)
    expect(session?.input.readableLength).toBeLessThan(4 * block.length)
    socket.send(Buffer.from([channels.close, channels.stdin]))
    reading.resolve()
    await closed
    expect(received).toBe(200 * (block.length - 1))
  })

  test('without stdin has none, and tells success', async () => {
    await start()
    const session = await connect('exec?command=cat', ['v4.channel.k8s.io'])
    session.socket.send(Buffer.from('\u0000ignored'))
    await session.closed
    expect(textOf(session.messages, channels.stdout)).toBe('')
    expect(JSON.parse(textOf(session.messages, channels.status)).status).toBe('Success')
  })

  test('is refused before the upgrade, or fails with a Status after it', async () => {
    await start({
      async prepareCommand(_, { command }) {
        if (command[0] === 'missing') throw failure('agentUnavailable', { detail: 'no agent' })
        return async () => {
          throw failure('agentUnavailable', { detail: 'it went away' })
        }
      },
    })
    expect(await refusal('exec?command=missing')).toMatchObject({ code: 503 })
    expect(await refusal('exec')).toMatchObject({ code: 400 })
    expect(await refusal('exec?command=a%00b')).toMatchObject({ code: 400 })
    expect((await refusal('exec?command=a&tty=maybe')).code).toBe(400)
    const session = await connect('exec?command=a', v5)
    await session.closed
    expect(JSON.parse(textOf(session.messages, channels.status))).toMatchObject({
      status: 'Failure',
      message: expect.stringContaining('it went away'),
    })
  })

  test('aborts the command when the client leaves, and drops one that reads nothing', async () => {
    const sessions: ExecSession[] = []
    await start({
      async prepareCommand(_, { command }) {
        return async session => {
          sessions.push(session)
          if (command[0] === 'flood') {
            const block = Buffer.alloc(60_000)
            while (!session.signal.aborted) {
              void session.send('stdout', block)
              await new Promise(resolve => setImmediate(resolve))
            }
          }
          await once(session.signal, 'abort')
          return { exitCode: 0 }
        }
      },
    })
    const leaving = await connect('exec?command=wait', v5)
    await expect.poll(() => sessions.length).toBe(1)
    leaving.socket.terminate()
    await expect.poll(() => sessions[0]?.signal.aborted).toBe(true)
    const slow = await connect('exec?command=flood', v5)
    slow.socket.pause()
    await expect.poll(() => sessions[1]?.signal.aborted).toBe(true)
    slow.socket.terminate()
  })
})

describe('log', () => {
  test('is text, in the part that is asked for, and ends with the client', async () => {
    const log = new PassThrough()
    let asked: unknown
    await start({
      async openLog(_, { signal: _signal, ...request }) {
        asked = request
        if (request.follow) return log
        return Readable.from(['one\n', 'two\n'])
      },
    })
    const whole = await api.request('GET', `${machines('a')}/m/log?tailLines=2&limitBytes=9`)
    expect(whole).toMatchObject({ code: 200, text: 'one\ntwo\n' })
    expect(whole.headers['content-type']).toContain('text/plain')
    expect(asked).toEqual({ follow: false, tailLines: 2, limitBytes: 9 })
    const following = await api.open(`${machines('a')}/m/log?follow=true`)
    log.write('late\n')
    expect(String((await once(following, 'data'))[0])).toBe('late\n')
    following.destroy()
    await expect.poll(() => log.destroyed).toBe(true)
  })
})

describe('image bytes', () => {
  test('of any size are received with back-pressure', async () => {
    const total = 32 * 1024 * 1024
    let received = 0
    let held = 0
    let asked: unknown
    await start({
      async receiveImagePart(image, part, bytes, { signal: _, ...request }) {
        asked = { name: image.metadata.name, part, ...request }
        for await (const chunk of bytes) {
          received += chunk.length
          held = Math.max(held, bytes.readableLength)
        }
        return image
      },
    })
    const put = httpRequest({
      socketPath: api.socketPath,
      method: 'PUT',
      path: `${images}/i/content?format=raw`,
      headers: { 'content-length': total, 'content-type': 'application/octet-stream' },
    })
    const answered = once(put, 'response')
    Readable.from(
      (function* () {
        for (let sent = 0; sent < total; sent += 65_536) yield Buffer.alloc(65_536)
      })(),
    ).pipe(put)
    const [response] = await answered
    response.resume()
    expect(response.statusCode).toBe(200)
    expect(received).toBe(total)
    expect(held).toBeLessThan(1024 * 1024)
    expect(asked).toEqual({ name: 'i', part: 'content', format: 'raw', sizeBytes: total })
  })

  test('that break off end the work', async () => {
    let outcome = ''
    let aborted: AbortSignal | undefined
    await start({
      async receiveImagePart(image, _, bytes, { signal }) {
        aborted = signal
        try {
          for await (const _ of bytes);
        } catch (error) {
          outcome = String(error)
        }
        return image
      },
    })
    const put = httpRequest({
      socketPath: api.socketPath,
      method: 'PUT',
      path: `${images}/i/kernel`,
      headers: { 'content-length': 1_000_000 },
    })
    put.on('error', () => {})
    put.write(Buffer.alloc(1000))
    await expect.poll(() => aborted).toBeDefined()
    put.destroy()
    await expect.poll(() => [outcome !== '', aborted?.aborted]).toEqual([true, true])
  })

  test('that are refused are answered while the client still sends', async () => {
    await start({
      async receiveImagePart(_, __, bytes) {
        await once(bytes, 'readable')
        throw failure('badRequest', { detail: 'no disk that is taken here' })
      },
    })
    const answer = await api.request('PUT', `${images}/i/content?format=qcow2`, {
      body: Buffer.alloc(4 * 1024 * 1024),
    })
    expect(answer).toMatchObject({ code: 400, json: { message: 'no disk that is taken here' } })
    const wrong = await api.request('PUT', `${images}/i/content?format=vmdk`, { body: 'x' })
    expect(wrong.code).toBe(400)
  })

  test('are verified and inspected', async () => {
    await start()
    const verify = (query = '') => api.request('POST', `${images}/i/verify${query}`)
    expect(await verify()).toMatchObject({ json: { ok: true, repair: false } })
    expect(await verify('?repair=true')).toMatchObject({ json: { repair: true } })
    expect(await verify('?repair=perhaps')).toMatchObject({ code: 400 })
    expect(await api.request('GET', `${images}/i/inspect`)).toMatchObject({ json: 'a text' })
  })
})

describe('a library of images', () => {
  test('is listed and checked', async () => {
    await start()
    const entries = { json: { entries: [], isWhole: true } }
    expect(await api.request('GET', '/images-library')).toMatchObject(entries)
    const checked = await api.request('GET', '/images-library/check?name=team%2Fbase%3A1')
    expect(checked).toMatchObject({ json: { name: 'team/base:1', wrong: [] } })
    expect(await api.request('GET', '/images-library/check')).toMatchObject({ code: 400 })
    expect(await api.request('POST', '/images-library')).toMatchObject({ code: 405 })
  })

  test('that is not there is said', async () => {
    await start({
      async listLibrary() {
        throw failure('libraryMissing', {})
      },
    })
    const answer = await api.request('GET', '/images-library')
    expect(answer).toMatchObject({
      code: 422,
      json: { message: expect.stringContaining('library') },
    })
  })
})
