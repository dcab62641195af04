import { createServer, type Socket } from 'node:net'
import { onTestFinished } from 'vitest'
import { createLineSplitter } from '../../kvm/line-splitter.ts'

/** One connection, seen from the peer's side. */
export interface PeerConnection {
  /** Sends exactly these bytes. */
  send(bytes: string | Uint8Array): void
  /** The next line that the other side sent, waiting for it when there is none yet. */
  nextLine(): Promise<string>
  /** Ends the connection. */
  drop(): void
  readonly socket: Socket
}

/** A server on a unix socket that does what a test's script says; it closes when the test ends. */
export interface ScriptedPeer {
  /** How many connections there have been. */
  connections(): number
  /** Stops listening and drops everyone. */
  close(): Promise<void>
}

/** Listens on `path` and plays `script` for every connection. */
export async function startScriptedPeer(
  path: string,
  script: (peer: PeerConnection) => void | Promise<void>,
): Promise<ScriptedPeer> {
  const sockets = new Set<Socket>()
  let connections = 0
  const server = createServer(socket => {
    connections++
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => {})
    void script(peerConnection(socket))
  })
  await new Promise<void>(resolve => server.listen(path, resolve))
  const close = () =>
    new Promise<void>(resolve => {
      server.close(() => resolve())
      for (const socket of sockets) socket.destroy()
    })
  onTestFinished(close)
  return { connections: () => connections, close }
}

function peerConnection(socket: Socket): PeerConnection {
  const lines: string[] = []
  const readers: ((line: string) => void)[] = []
  const splitter = createLineSplitter({
    limitBytes: 16 * 1024 * 1024,
    onLine: line => {
      const reader = readers.shift()
      if (reader === undefined) lines.push(line)
      else reader(line)
    },
    onOversize: () => socket.destroy(),
  })
  socket.on('data', bytes => splitter.push(bytes))
  return {
    socket,
    send: bytes => void socket.write(bytes),
    drop: () => socket.destroy(),
    nextLine: () =>
      new Promise(resolve => {
        const line = lines.shift()
        if (line === undefined) readers.push(resolve)
        else resolve(line)
      }),
  }
}
