import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { systemClock } from '../base/clock.ts'
import { readSshBanner, untilSshBanner } from './ssh-probe.ts'

async function listen(script: (socket: Socket, at: number) => void): Promise<number> {
  const sockets: Socket[] = []
  const server = createServer(socket => {
    sockets.push(socket)
    socket.on('error', () => {})
    script(socket, sockets.length)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const address = server.address()
  return typeof address === 'object' ? (address?.port ?? 0) : 0
}

async function probe(
  script: (socket: Socket) => void,
  timeoutMs = 5000,
): Promise<string | undefined> {
  const port = await listen(script)
  return await readSshBanner({ host: '127.0.0.1', port, timeoutMs }, systemClock)
}

describe('readSshBanner', () => {
  it('reads a banner that comes in pieces, after other lines', async () => {
    const banner = await probe(socket => {
      socket.write('Welcome\r\nSSH-2.0-drop')
      setImmediate(() => socket.write('bear_2022.83\r\nmore'))
    })
    expect(banner).toBe('SSH-2.0-dropbear_2022.83')
  })

  it('finds none where a connection is accepted and nothing said', async () => {
    expect(await probe(() => {}, 30)).toBeUndefined()
  })

  it('finds none where the connection is closed, or something else answers', async () => {
    expect(await probe(socket => socket.end())).toBeUndefined()
    expect(await probe(socket => socket.end('SSH-2.0-half'))).toBeUndefined()
    expect(await probe(socket => socket.end('SSH-1.5-old\r\n'))).toBeUndefined()
    expect(await probe(socket => socket.end('SSH-2.0-\u001b[2J\r\n'))).toBeUndefined()
    expect(await probe(socket => socket.end(`SSH-2.0-${'x'.repeat(300)}\r\n`))).toBeUndefined()
    expect(await probe(socket => socket.write('x'.repeat(100_000)))).toBeUndefined()
  })

  it('finds none where nobody listens, and stops when told', async () => {
    const init = { host: '127.0.0.1', port: 1, timeoutMs: 5000 }
    expect(await readSshBanner(init, systemClock)).toBeUndefined()
    expect(await readSshBanner({ ...init, signal: AbortSignal.abort() }, systemClock)).toBe(
      undefined,
    )
  })
})

describe('untilSshBanner', () => {
  it('does not wait for an attempt that came too early', async () => {
    let accepted = 0
    const port = await listen((socket, at) => {
      accepted = at
      if (at === 3) socket.write('SSH-2.0-late\r\n')
    })
    const { signal } = new AbortController()
    const began = systemClock.monotonicMs()
    expect(await untilSshBanner({ host: '127.0.0.1', port }, systemClock, signal)).toBe(
      'SSH-2.0-late',
    )
    expect(accepted).toBe(3)
    expect(systemClock.monotonicMs() - began).toBeLessThan(5_000)
  })

  it('goes on until it is told to end', async () => {
    const ended = new AbortController()
    const port = await listen((socket, at) => {
      if (at === 2) ended.abort(new Error('enough'))
      socket.end()
    })
    const waiting = untilSshBanner({ host: '127.0.0.1', port }, systemClock, ended.signal)
    await expect(waiting).rejects.toThrow('enough')
  })
})
