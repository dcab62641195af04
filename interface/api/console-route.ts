import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { FastifyInstance } from 'fastify'
import type { WebSocket } from 'ws'
import { messageOf } from '../../base/log.ts'
import { virtualMachineKind } from '../../resources/virtual-machine.ts'
import { type ApiContext, type RouteTypes, referenceOf } from './context.ts'
import { collectionPath } from './resource-routes.ts'
import { refuseOthers } from './routes.ts'
import {
  bytesOf,
  closeCodes,
  closeSocket,
  connectionSignal,
  createInbox,
  keepAlive,
  refusePlain,
  sendMessage,
} from './websocket.ts'

/** Serves the serial console: the bytes of its messages are those of the line, both ways. */
export function consoleRoute(app: FastifyInstance, context: ApiContext): void {
  const kind = virtualMachineKind
  const url = `${collectionPath(kind)}/:name/console`
  const opened = new WeakMap<object, Duplex>()
  app.route<RouteTypes>({
    method: 'GET',
    url,
    handler: refusePlain,
    // Before the upgrade, so that a refusal is an answer that every client can read.
    async preHandler(request) {
      if (!request.ws) return
      const machine = await context.objects.get(kind, referenceOf(kind, request))
      const signal = connectionSignal(context, request)
      const line = await context.subresources.openConsole(machine, { signal })
      line.on('error', () => {})
      if (signal.aborted) line.destroy()
      signal.addEventListener('abort', () => line.destroy(), { once: true })
      opened.set(request, line)
    },
    wsHandler(socket, request) {
      const line = opened.get(request)
      if (line === undefined) socket.terminate()
      else void connectLine(context, socket, line)
    },
  })
  refuseOthers(app, url, ['GET'])
}

/** Joins a client and a line until either ends. */
async function connectLine(context: ApiContext, socket: WebSocket, line: Duplex): Promise<void> {
  const stopPings = keepAlive(socket, context.clock)
  const inbox = createInbox(socket)
  socket.on('message', data => inbox.push(bytesOf(data)))
  socket.on('close', () => {
    inbox.end()
    line.destroy()
  })
  const typing = pipeline(inbox.stream, line, { end: false }).catch(() => {})
  try {
    for await (const chunk of line) await sendMessage(socket, Buffer.from(chunk))
    closeSocket(socket, closeCodes.normal)
  } catch (error) {
    const code = context.closing.aborted ? closeCodes.goingAway : closeCodes.failed
    closeSocket(socket, code, messageOf(error))
  } finally {
    stopPings()
    line.destroy()
    inbox.stream.destroy()
    await typing
  }
}
