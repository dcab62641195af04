import { Worker } from 'node:worker_threads'
import { failure } from '../../base/errors.ts'
import { type Log, messageOf } from '../../base/log.ts'
import type { TransferTls } from '../transfer/transfers.ts'
import type { FindMember } from './member-gate.ts'
import type { Rot, ServedImage } from './served-images.ts'
import type { FromServer, PeerServerInit, ToServer } from './server-messages.ts'

/** What the server needs of the main thread. */
export interface PeerServerComponents {
  log: Log
  /** Whose a certificate (DER) is; undefined unless it is a member's, now. */
  findMember: FindMember
  /**
   * Something that was verified is not any more what it was. It is not served again before
   * `setImage` says the image anew; called once for each chunk.
   */
  onRot(rot: Rot): void
  /** The thread died, and nothing is served any more. Not called after `close`. */
  onFailed(error: Error): void
}

/** The server that gives other hosts of the fleet parts of images, in a thread of its own. */
export interface PeerServer {
  readonly port: number
  /** For connections that come from now on; those that are open go on. */
  setTls(tls: TransferTls): void
  /** Ends the connections of those that are no members any more, at once. */
  membersChanged(): void
  /** Serves an image from now on. Again when it has become whole, has moved or was mended. */
  setImage(image: ServedImage): void
  /** More chunks of a partial image are durable. */
  addStored(image: string, layer: number, chunks: number[]): void
  /** Resolves when none of the image's files is open here any more. */
  removeImage(image: string): Promise<void>
  close(): Promise<void>
}

/** Starts it. @throws the system's error, with its code, when the port is taken */
export async function startPeerServer(
  init: PeerServerInit,
  components: PeerServerComponents,
): Promise<PeerServer> {
  const worker = new Worker(new URL('./server-thread.ts', import.meta.url), {
    workerData: init,
    // No arguments of ours: under a test runner they would load its hooks into the thread.
    execArgv: [],
  })
  const listening = Promise.withResolvers<number>()
  const ended = Promise.withResolvers<void>()
  const removals = new Map<number, () => void>()
  let nextId = 1
  let state: 'starting' | 'serving' | 'closing' | 'ended' = 'starting'
  const send = (message: ToServer): void => {
    if (state === 'serving' || state === 'closing') worker.postMessage(message)
  }
  const fail = (error: Error): void => {
    const before = state
    state = 'ended'
    listening.reject(error)
    if (before === 'serving') components.onFailed(error)
  }
  worker.on('message', (message: FromServer) => {
    if (message.type === 'listening') listening.resolve(message.port)
    else if (message.type === 'failed') fail(errorOf(message))
    else if (message.type === 'rot') components.onRot(message.rot)
    else if (message.type === 'log') components.log.debug(message.fields, message.message)
    else if (message.type === 'removed') removals.get(message.id)?.()
    else if (message.type === 'member') void answer(message, components, send)
    else void worker.terminate()
  })
  worker.on('error', error => fail(error instanceof Error ? error : new Error(String(error))))
  worker.on('exit', code => {
    if (state !== 'closing') fail(failure('internal', { detail: `the thread ended (${code})` }))
    state = 'ended'
    for (const removed of removals.values()) removed()
    ended.resolve()
  })
  try {
    const port = await listening.promise
    state = 'serving'
    return {
      port,
      setTls: tls => send({ type: 'tls', tls }),
      membersChanged: () => send({ type: 'membersChanged' }),
      setImage: image => send({ type: 'image', image }),
      addStored: (image, layer, chunks) => send({ type: 'stored', image, layer, chunks }),
      async removeImage(image) {
        if (state !== 'serving') return
        const id = nextId++
        await new Promise<void>(resolve => {
          removals.set(id, resolve)
          send({ type: 'remove', id, image })
        })
        removals.delete(id)
      },
      async close() {
        if (state === 'serving') {
          state = 'closing'
          worker.postMessage({ type: 'close' } satisfies ToServer)
        }
        await ended.promise
      },
    }
  } catch (error) {
    await worker.terminate()
    throw error
  }
}

async function answer(
  { id, certificate }: { id: number; certificate: Uint8Array },
  { findMember, log }: PeerServerComponents,
  send: (message: ToServer) => void,
): Promise<void> {
  let name: string | undefined
  try {
    name = await findMember(certificate)
  } catch (error) {
    log.debug({ error: messageOf(error) }, 'another host is given no parts of images')
  }
  send({ type: 'member', id, name })
}

function errorOf({ code, message }: { code: string; message: string }): Error {
  return Object.assign(new Error(message), code === '' ? {} : { code })
}
