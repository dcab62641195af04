import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { systemClock } from '../base/clock.ts'
import { readSshBanner } from './ssh-probe.ts'

async function probe(
  script: (socket: Socket) => void,
  timeoutMs = 5000,
): Promise<string | undefined> {
  const sockets: Socket[] = []
  const server = createServer(socket => {
    sockets.push(socket)
    socket.on('error', () => {})
    script(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const address = server.address()
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0
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
