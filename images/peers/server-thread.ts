import { parentPort, workerData } from 'node:worker_threads'
import { systemClock } from '../../base/clock.ts'
import { assert } from '../../base/errors.ts'
import { messageOf } from '../../base/log.ts'
import { type PeerService, startPeerService } from './peer-service.ts'
import { createServedImages } from './served-images.ts'
import type { FromServer, PeerServerInit, ToServer } from './server-messages.ts'

// A thread of its own: it reads, hashes and encrypts what other hosts fetch, and the daemon's event
// loop, which guests depend on, goes on meanwhile.

assert(parentPort, 'this file runs as a worker thread')
const port = parentPort
const init: PeerServerInit = workerData
const images = createServedImages({
  limits: init.limits,
  onRot: rot => send({ type: 'rot', rot }),
})
/** Questions about certificates that the main thread has not answered yet: one a session. */
const asked = new Map<number, (name: string | undefined) => void>()
let nextId = 1

function send(message: FromServer): void {
  port.postMessage(message)
}

function findMember(certificate: Uint8Array): Promise<string | undefined> {
  const id = nextId++
  return new Promise(resolve => {
    asked.set(id, resolve)
    send({ type: 'member', id, certificate })
  })
}

function take(message: ToServer, service: PeerService): void {
  if (message.type === 'tls') service.setTls(message.tls)
  else if (message.type === 'image') images.set(message.image)
  else if (message.type === 'stored') images.add(message.image, message.layer, message.chunks)
  else if (message.type === 'membersChanged') service.membersChanged()
  else if (message.type === 'member') {
    asked.get(message.id)?.(message.name)
    asked.delete(message.id)
  } else if (message.type === 'remove') {
    const { id } = message
    void images.remove(message.image).finally(() => send({ type: 'removed', id }))
  } else void end(service)
}

async function end(service: PeerService): Promise<void> {
  await service.close()
  await images.close()
  send({ type: 'closed' })
  port.close()
}

try {
  const log = {
    debug: (fields: object, message: string) => send({ type: 'log', fields, message }),
  }
  const service = await startPeerService(init, { clock: systemClock, log, images, findMember })
  port.on('message', (message: ToServer) => take(message, service))
  send({ type: 'listening', port: service.port })
} catch (error) {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  send({ type: 'failed', code, message: messageOf(error) })
}
