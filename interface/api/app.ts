import websocket from '@fastify/websocket'
import { type FastifyError, type FastifyInstance, fastify } from 'fastify'
import { failure, type MacfleetError } from '../../base/errors.ts'
import { kinds } from '../../resources/kinds.ts'
import { commitRoute } from './commit-route.ts'
import { consoleRoute } from './console-route.ts'
import type { ApiContext } from './context.ts'
import { discoveryRoutes } from './discovery.ts'
import { chooseProtocol, execRoute } from './exec-route.ts'
import { fleetRoutes } from './fleet-routes.ts'
import { healthRoutes } from './health.ts'
import { imageRoutes } from './image-routes.ts'
import { libraryRoutes } from './library-routes.ts'
import { logRoute } from './log-route.ts'
import { metricsRoutes } from './metrics.ts'
import { resourceRoutes } from './resource-routes.ts'
import { asFailure, failureStatus, type Status } from './status.ts'
import { warnOfOldReads } from './warning.ts'

const speaksWebSocket = /\/(console|exec)$/

/** Longer parts of a path name nothing. */
const longestParameter = 512

/** All routes on one server, which does not listen yet; the same for every way to reach the API. */
export async function createApp(context: ApiContext): Promise<FastifyInstance> {
  const { limits, log } = context
  const statusOf = (thrown: unknown): Status =>
    failureStatus(asFailure(thrown, log, limits.requestBodyBytes))
  const app = fastify({
    logger: false,
    exposeHeadRoutes: false,
    forceCloseConnections: true,
    // Uploads take as long as they take; everything else has bounds of its own.
    requestTimeout: 0,
    routerOptions: { maxParamLength: longestParameter },
    frameworkErrors(error, _, reply) {
      const status = statusOf(error)
      reply.raw.writeHead(status.code, { 'content-type': 'application/json' })
      reply.raw.end(JSON.stringify(status))
    },
    clientErrorHandler(error, socket) {
      // What arrived is no HTTP: there is no request to answer, only a connection to end.
      if (!socket.writable || error.code === 'ECONNRESET') return
      const body = JSON.stringify(
        failureStatus(
          failure('badRequest', { detail: 'the request is no HTTP that is read here' }),
        ),
      )
      const head = `HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: application/json`
      socket.end(`${head}\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`)
    },
  })
  app.server.maxConnections = limits.apiConnections
  app.setErrorHandler<FastifyError | MacfleetError>((error, _, reply) => {
    const status = statusOf(error)
    const retryAfter = status.details?.retryAfterSeconds
    if (retryAfter !== undefined) reply.header('retry-after', retryAfter)
    return reply.code(status.code).send(status)
  })
  app.setNotFoundHandler(async request => {
    const [path = ''] = request.url.split('?')
    throw failure('pathNotFound', { path: path.slice(0, 500) })
  })
  // Bodies are read where they are wanted, in the way that is wanted there.
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (_request, _payload, done) => done(null))
  app.addHook('onResponse', async request => {
    // What was not read of a body is thrown away, so that the connection can be used again.
    if (!request.raw.complete && !request.raw.destroyed && !request.ws) request.raw.resume()
  })
  await app.register(websocket, {
    options: { maxPayload: limits.webSocketMessageBytes, handleProtocols: chooseProtocol },
    errorHandler: (_error, socket) => socket.terminate(),
  })
  app.addHook('onRequest', async request => {
    const { url } = request.routeOptions
    // Without this the upgrade would be granted and the connection closed without a word.
    if (request.ws && url !== undefined && !speaksWebSocket.test(url)) {
      throw failure('badRequest', { detail: 'this path does not speak WebSocket' })
    }
  })
  warnOfOldReads(app, context)
  addRoutes(app, context)
  await app.ready()
  return app
}

function addRoutes(app: FastifyInstance, context: ApiContext): void {
  metricsRoutes(app, context)
  healthRoutes(app, context)
  discoveryRoutes(app, context)
  for (const kind of kinds) resourceRoutes(app, context, kind)
  consoleRoute(app, context)
  execRoute(app, context)
  commitRoute(app, context)
  logRoute(app, context)
  imageRoutes(app, context)
  libraryRoutes(app, context)
  fleetRoutes(app, context)
}
