import type { Server } from 'node:https'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { type FastifyError, type FastifyInstance, fastify } from 'fastify'
import { failure, MacfleetError } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import type { MemberList } from '../../cluster/membership/members.ts'
import type { FleetFolder } from './fleet-folder.ts'
import { createGuard, type Guard, type GuardComponents, type RequireMember } from './guard.ts'
import { answerOf } from './peer-errors.ts'

/** Adds routes to the peer port. Each asks `requireMember` first, unless it is for anybody. */
export type PeerRoutes = (app: FastifyInstance, requireMember: RequireMember) => void

/** How a peer server is made. */
export interface PeerServerInit {
  /** Where it listens, an IP address. */
  host: string
  /** 0 for a free one. */
  port: number
  routes: readonly PeerRoutes[]
}

/** What a peer server needs. */
export interface PeerServerComponents extends GuardComponents {
  folder: FleetFolder
  members: MemberList
  log: Log
  limits: Pick<
    Limits,
    'joinRequestBytes' | 'peerPortConnections' | 'peerPortConnectionsPerSource' | 'requestBodyMs'
  >
}

/** The HTTPS server that other hosts of the fleet, and those that want to join, speak to. */
export interface PeerServer {
  port: number
  guard: Guard
  /** Takes certificates and authorities that are new; connections that are open stay. */
  reload(): void
  close(): Promise<void>
}

/** Starts it. Throws when the port is taken. */
export async function startPeerServer(
  init: PeerServerInit,
  components: PeerServerComponents,
): Promise<PeerServer> {
  const { folder, limits, log, members } = components
  const guard = createGuard(components)
  const app = await createPeerApp(init, components, guard)
  const server = app.server as unknown as Server
  server.maxConnections = limits.peerPortConnections
  boundSources(server, limits.peerPortConnectionsPerSource)
  const connections = followConnections(server, guard)
  const stopFollowing = members.onChange(() => connections.endStrangers())
  await app.listen({ host: init.host, port: init.port })
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : init.port
  log.info({ host: init.host, port }, 'other hosts are answered')
  return {
    port,
    guard,
    reload() {
      server.setSecureContext({ ...folder.tls('hosts'), minVersion: 'TLSv1.3' })
    },
    async close() {
      stopFollowing()
      await app.close()
    },
  }
}

async function createPeerApp(
  init: PeerServerInit,
  { folder, limits, log }: PeerServerComponents,
  guard: Guard,
): Promise<FastifyInstance> {
  const app = fastify({
    logger: false,
    forceCloseConnections: true,
    exposeHeadRoutes: false,
    bodyLimit: limits.joinRequestBytes,
    requestTimeout: limits.requestBodyMs,
    handlerTimeout: 0,
    routerOptions: { maxParamLength: 512 },
    https: {
      ...folder.tls('hosts'),
      minVersion: 'TLSv1.3' as const,
      // A joiner has no certificate and a late one an old one: each route says whom it lets in.
      requestCert: true,
      rejectUnauthorized: false,
      handshakeTimeout: 10_000,
    },
    frameworkErrors(error, _, reply) {
      const answer = answerOf(asFailure(error, log, limits))
      reply.raw.writeHead(400, { 'content-type': 'application/json' })
      reply.raw.end(JSON.stringify(answer))
    },
    clientErrorHandler(_error, socket) {
      // What arrived is no HTTP: there is no request to answer.
      socket.destroy()
    },
  }) as unknown as FastifyInstance
  app.setErrorHandler<FastifyError | MacfleetError>((error, _, reply) => {
    const known = asFailure(error, log, limits)
    return reply.code(known.httpStatus).send(answerOf(known))
  })
  app.setNotFoundHandler(async request => {
    const [path = ''] = request.url.split('?')
    throw failure('pathNotFound', { path: path.slice(0, 200) })
  })
  for (const addRoutes of init.routes) addRoutes(app, guard.requireMember)
  await app.ready()
  return app
}

function asFailure(
  thrown: unknown,
  log: Log,
  limits: Pick<Limits, 'joinRequestBytes'>,
): MacfleetError {
  if (thrown instanceof MacfleetError) return thrown
  const { statusCode = 500, code } = thrown as Partial<FastifyError>
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
    return failure('tooLarge', { limitBytes: limits.joinRequestBytes })
  }
  if (statusCode < 500) return failure('badRequest', { detail: messageOf(thrown).slice(0, 200) })
  log.error({ error: messageOf(thrown) }, 'a request of another host failed')
  return failure('internal', { detail: 'see the log of the host that was asked' })
}

/** Lets no single address have all connections, so that it can't keep the members out. */
function boundSources(server: Server, most: number): void {
  const open = new Map<string, number>()
  server.on('connection', (socket: Socket) => {
    const source = socket.remoteAddress ?? ''
    const count = open.get(source) ?? 0
    if (count >= most) {
      socket.destroy()
      return
    }
    open.set(source, count + 1)
    socket.once('close', () => {
      const left = (open.get(source) ?? 1) - 1
      if (left > 0) open.set(source, left)
      else open.delete(source)
    })
  })
}

/** Ends the connections of hosts that were let in and are members no more. */
function followConnections(server: Server, guard: Guard): { endStrangers(): void } {
  const open = new Set<TLSSocket>()
  server.on('secureConnection', socket => {
    if (socket.getPeerX509Certificate() === undefined) return
    // Who shows a certificate that is refused from the start is answered why, by each route.
    if (!isMember(guard, socket)) return
    open.add(socket)
    socket.once('close', () => open.delete(socket))
  })
  server.on('tlsClientError', (_error, socket: Socket) => socket.destroy())
  return {
    endStrangers() {
      for (const socket of open) if (!isMember(guard, socket)) socket.destroy()
    },
  }
}

function isMember(guard: Guard, socket: TLSSocket): boolean {
  try {
    guard.requireMemberOf(socket)
    return true
  } catch {
    return false
  }
}
