import { chmodSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { failure, MacfleetError, messageOf } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import { createLineSplitter } from '../../kvm/line-splitter.ts'
import { checkRequest, type ExitEvent, type GuardianRequest, parseEnvelope } from './protocol.ts'

/** Where the guardian is asked, and who answers. */
export interface ServerInit {
  socketPath: string
  limits: Limits
  /** Answers a request; what it throws is told to the client. */
  handle(request: GuardianRequest): Promise<unknown>
  /** Called when the answer to a request is on its way. */
  onAnswered(): void
}

/** What the server needs. */
export interface ServerComponents {
  log: Log
}

/** The guardian's socket. */
export interface GuardianServer {
  /** Tells every client. */
  broadcast(event: ExitEvent): void
  /** Stops listening and ends all connections, each after what was answered has been sent. */
  close(onClosed: () => void): void
}

/**
 * Listens on a unix socket of mode 0600: whoever can open it has our uid. The caller holds the
 * lock of the folder, so a socket file that is there belongs to nobody.
 */
export async function listen(
  init: ServerInit,
  components: ServerComponents,
): Promise<GuardianServer> {
  const clients = new Set<Socket>()
  const server = createServer(socket => {
    if (clients.size >= init.limits.guardianClients) {
      components.log.warn({ clients: clients.size }, 'too many clients, one was turned away')
      socket.destroy()
      return
    }
    clients.add(socket)
    socket.on('close', () => clients.delete(socket))
    socket.on('error', () => socket.destroy())
    serve(socket, init, components)
  })
  await bind(server, init.socketPath)
  return {
    broadcast(event) {
      for (const client of clients) send(client, event, init.limits)
    },
    close(onClosed) {
      server.close(onClosed)
      rmSync(init.socketPath, { force: true })
      for (const client of clients) client.destroySoon()
    },
  }
}

async function bind(server: Server, path: string): Promise<void> {
  rmSync(path, { force: true })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, resolve)
  })
  // The umask made it 0600 from its first moment; this is for a umask that somebody changed.
  chmodSync(path, 0o600)
}

/** Answers one client's requests, one after the other, in their order. */
function serve(socket: Socket, init: ServerInit, { log }: ServerComponents): void {
  const waiting: string[] = []
  let busy = false

  const drop = (detail: string): void => {
    log.warn({ detail }, 'a client was cut off')
    waiting.length = 0
    socket.destroy()
  }

  const work = async (): Promise<void> => {
    if (busy) return
    busy = true
    for (let line = waiting.shift(); line !== undefined; line = waiting.shift()) {
      const envelope = parseEnvelope(line)
      if (envelope === undefined) {
        drop('it sent something that is no request')
        break
      }
      send(socket, await answer(envelope, init, log), init.limits)
      init.onAnswered()
    }
    busy = false
    socket.resume()
  }

  const splitter = createLineSplitter({
    limitBytes: init.limits.messageLineBytes,
    onLine(line) {
      waiting.push(line)
      // No more is read until what came with this piece is done, so the list stays one piece long.
      socket.pause()
      void work()
    },
    onOversize: () => drop(`it sent a line of more than ${init.limits.messageLineBytes} bytes`),
  })
  socket.on('data', bytes => splitter.push(bytes))
}

type Envelope = NonNullable<ReturnType<typeof parseEnvelope>>

async function answer(envelope: Envelope, init: ServerInit, log: Log): Promise<object> {
  const { id } = envelope
  try {
    return { id, result: await init.handle(checkRequest(envelope, init.limits)) }
  } catch (thrown) {
    const error =
      thrown instanceof MacfleetError ? thrown : failure('internal', { detail: messageOf(thrown) })
    if (error.code === 'internal') log.error({ error: messageOf(thrown) }, 'a request failed')
    return { id, error: { code: error.code, values: error.values, message: error.message } }
  }
}

/**
 * A client that does not read what we send is no client: it is cut off before it fills our memory.
 */
function send(socket: Socket, message: object, limits: Limits): void {
  if (socket.destroyed) return
  if (socket.writableLength > 2 * limits.messageLineBytes) socket.destroy()
  else socket.write(`${JSON.stringify(message)}\n`)
}
