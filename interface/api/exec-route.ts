import type { FastifyInstance } from 'fastify'
import type { WebSocket } from 'ws'
import { failure } from '../../base/errors.ts'
import { virtualMachineKind } from '../../resources/virtual-machine.ts'
import {
  channelProtocols,
  channels,
  exitStatus,
  frame,
  parseFrame,
  parseSize,
  statusFrame,
} from './channel-framing.ts'
import {
  type ApiContext,
  type ApiRequest,
  booleanParameter,
  type RouteTypes,
  referenceOf,
} from './context.ts'
import { collectionPath } from './resource-routes.ts'
import { refuseOthers } from './routes.ts'
import { asFailure, failureStatus } from './status.ts'
import type { ExecRequest, ExecSession, RunCommand, TerminalSize } from './subresources.ts'
import {
  bytesOf,
  closeCodes,
  closeSocket,
  connectionSignal,
  createInbox,
  type Inbox,
  keepAlive,
  refusePlain,
  sendMessage,
} from './websocket.ts'

/**
 * Bounds of a command line, as Linux has one for each (execve(2)); the request line is bounded
 * too.
 */
const mostArguments = 1_000

interface Prepared {
  run: RunCommand
  request: ExecRequest
  signal: AbortSignal
}

/** Serves the running of a command in a guest, over the channels of `kubectl exec`. */
export function execRoute(app: FastifyInstance, context: ApiContext): void {
  const kind = virtualMachineKind
  const url = `${collectionPath(kind)}/:name/exec`
  const prepared = new WeakMap<object, Prepared>()
  app.route<RouteTypes>({
    method: 'GET',
    url,
    handler: refusePlain,
    async preHandler(request) {
      if (!request.ws) return
      const wanted = execRequest(request)
      const machine = await context.objects.get(kind, referenceOf(kind, request))
      const signal = connectionSignal(context, request)
      const run = await context.subresources.prepareCommand(machine, { ...wanted, signal })
      prepared.set(request, { run, request: wanted, signal })
    },
    wsHandler(socket, request) {
      const ready = prepared.get(request)
      if (ready === undefined) socket.terminate()
      else void runSession(context, socket, ready)
    },
  })
  refuseOthers(app, url, ['GET'])
}

/** Chooses the newest of the protocols that a client offers; false when it knows none of ours. */
export function chooseProtocol(offered: ReadonlySet<string>): string | false {
  for (const protocol of [...channelProtocols, 'binary']) {
    if (offered.has(protocol)) return protocol
  }
  return false
}

function execRequest(request: ApiRequest): ExecRequest {
  const { query } = request
  const command = [query['command'] ?? []].flat()
  if (command.length === 0 || command[0] === '' || command.length > mostArguments) {
    throw failure('badRequest', {
      detail: `command must be there, once for each argument, at most ${mostArguments} times`,
    })
  }
  if (command.some(argument => argument.includes('\0'))) {
    throw failure('badRequest', { detail: 'command must not contain a zero byte' })
  }
  const tty = booleanParameter(query, 'tty')
  return { command, tty, stdin: booleanParameter(query, 'stdin') }
}

async function runSession(context: ApiContext, socket: WebSocket, ready: Prepared): Promise<void> {
  const stopPings = keepAlive(socket, context.clock)
  const inbox = createInbox(socket)
  if (!ready.request.stdin) inbox.end()
  const session = createSession(context, socket, inbox, ready.signal)
  try {
    const { exitCode } = await ready.run(session)
    await sendMessage(socket, statusFrame(exitStatus(exitCode)))
  } catch (thrown) {
    if (!ready.signal.aborted) {
      const error = asFailure(thrown, context.log, context.limits.requestBodyBytes)
      await sendMessage(socket, statusFrame(failureStatus(error)))
    }
  } finally {
    stopPings()
    inbox.stream.destroy()
    closeSocket(socket, context.closing.aborted ? closeCodes.goingAway : closeCodes.normal)
  }
}

function createSession(
  context: ApiContext,
  socket: WebSocket,
  inbox: Inbox,
  signal: AbortSignal,
): ExecSession {
  const listeners = new Set<(size: TerminalSize) => void>()
  /** Told before anybody listened. */
  let size: TerminalSize | undefined
  const onResize = (payload: Buffer) => {
    const told = parseSize(payload)
    if (told === undefined) return
    size = told
    for (const listener of listeners) listener(told)
  }
  socket.on('message', data => {
    const parsed = parseFrame(bytesOf(data))
    if (parsed?.channel === channels.stdin) inbox.push(parsed.payload)
    else if (parsed?.channel === channels.resize) onResize(parsed.payload)
    else if (parsed?.channel === channels.close && parsed.payload[0] === channels.stdin) inbox.end()
  })
  socket.on('close', () => inbox.end())
  return {
    input: inbox.stream,
    signal,
    send(channel, bytes) {
      // A sender that does not wait for its turn may fill our memory: it loses its client instead.
      if (socket.bufferedAmount > context.limits.webSocketBacklogBytes) socket.terminate()
      return sendMessage(socket, frame(channels[channel], bytes))
    },
    onResize(listener) {
      listeners.add(listener)
      if (size !== undefined) listener(size)
    },
  }
}
