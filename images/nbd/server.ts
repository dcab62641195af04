import { chmod, chown, mkdtemp, open, rename, rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { type Clock, withTimeout } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import { shakeHands } from './handshake.ts'
import { createInput } from './input.ts'
import type { ReadableDisk } from './readable-disk.ts'
import { answerRequests, createRoom, type Room } from './transmission.ts'

/** A disk, and where it is to be had. */
export interface NbdServerInit {
  /** The unix socket, of any length; what is there of an earlier one goes. */
  path: string
  /** The only user who may connect; undefined when that is us. */
  owner?: { uid: number; gid: number } | undefined
  disk: ReadableDisk
}

/** What serving needs. */
export interface NbdServerComponents {
  clock: Clock
  log: Log
  limits: NbdLimits
}

/** Its bounds. */
export type NbdLimits = Pick<
  Limits,
  | 'nbdConnections'
  | 'nbdHandshakeMs'
  | 'nbdOptions'
  | 'nbdRequestBytes'
  | 'nbdRequests'
  | 'nbdBytes'
  | 'nbdExtents'
  | 'nbdReadMs'
>

/** A disk that is served. */
export interface NbdServer {
  path: string
  /** Ends all connections and removes the socket. */
  close(): Promise<void>
}

/**
 * Serves a disk, read only, by the NBD protocol: the default export (named '') of a unix socket
 * that only its owner can use. A read that the disk fails, or does not answer in time, is an I/O
 * error to the client, which may ask again. Nothing that a client says ends more than its own
 * connection.
 * @throws what making the socket throws
 */
export async function serveDisk(
  init: NbdServerInit,
  components: NbdServerComponents,
): Promise<NbdServer> {
  const { limits } = components
  const ending = new AbortController()
  const connections = new Set<Promise<void>>()
  const room = createRoom(limits.nbdRequests, limits.nbdBytes)
  const onRead = createFailureLog(init.path, components.log)
  const server = createServer({ allowHalfOpen: false }, socket => {
    socket.on('error', () => {})
    if (connections.size >= limits.nbdConnections || ending.signal.aborted) return socket.destroy()
    const served = serveConnection({ socket, room, onRead, end: ending.signal, init }, components)
    connections.add(served)
    void served.finally(() => connections.delete(served))
  })
  await listen(server, init)
  return {
    path: init.path,
    async close() {
      ending.abort(failure('unavailable', { what: init.path, detail: 'it is closed', advice: '' }))
      await rm(init.path, { force: true })
      const closed = new Promise<void>(resolve => server.close(() => resolve()))
      await Promise.all([closed, ...connections])
    },
  }
}

/**
 * Listens under the path, which is never there for others than its owner: the socket is made in a
 * folder of its own and moved. The folders are named by their descriptors, because a socket's
 * name may have 107 bytes only (unix(7)).
 */
async function listen(server: Server, { path, owner }: NbdServerInit): Promise<void> {
  const ours = await mkdtemp(`${path}.`)
  try {
    const folder = await open(ours, 'r')
    try {
      // A name by chance: when it is closed, the server removes what it was made as.
      const made = join('/proc/self/fd', String(folder.fd), ours.slice(-6))
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      server.once('error', reject)
      server.listen(made, resolve)
      await promise
      server.off('error', reject)
      server.on('error', () => {})
      await chmod(made, 0o600)
      if (owner !== undefined) await chown(made, owner.uid, owner.gid)
      await rename(made, path)
    } catch (error) {
      server.close()
      throw error
    } finally {
      await folder.close()
    }
  } finally {
    await rm(ours, { recursive: true, force: true })
  }
}

interface ConnectionInit {
  socket: Socket
  room: Room
  onRead(error: unknown): void
  end: AbortSignal
  init: NbdServerInit
}

/** Never rejects. */
async function serveConnection(
  { socket, room, onRead, end, init }: ConnectionInit,
  { clock, log, limits }: NbdServerComponents,
): Promise<void> {
  const closed = new AbortController()
  const onClose = (): void => closed.abort(failure('internal', { detail: 'the client has left' }))
  socket.once('close', onClose)
  const onEnd = (): void => void socket.destroy()
  end.addEventListener('abort', onEnd, { once: true })
  try {
    const input = createInput(socket)
    const { disk } = init
    const { nbdHandshakeMs: timeoutMs } = limits
    const late = () => failure('timeout', { what: 'an NBD handshake', timeoutMs })
    const handshake = shakeHands({ socket, input, sizeBytes: disk.sizeBytes, limits })
    const agreement = await withTimeout(clock, timeoutMs, handshake, late)
    if (agreement === undefined) return
    const { signal } = closed
    await answerRequests(
      { socket, input, agreement, disk, room, onRead, signal },
      {
        clock,
        limits,
      },
    )
  } catch (error) {
    if (!closed.signal.aborted) {
      log.warn({ path: init.path, error: messageOf(error) }, 'an NBD client was let go')
    }
  } finally {
    end.removeEventListener('abort', onEnd)
    // An answer that was said to be the last still leaves.
    if (socket.writableEnded) socket.destroySoon()
    else socket.destroy()
    closed.abort(failure('internal', { detail: 'the connection is over' }))
  }
}

/** Tells the first of a row of reads that fail: a guest asks again and again. */
function createFailureLog(path: string, log: Log): (error: unknown) => void {
  let fails = false
  return error => {
    if (error !== undefined && !fails) {
      log.warn({ path, error: messageOf(error) }, 'an image can not be read as it is needed')
    }
    fails = error !== undefined
  }
}
