import type { FastifyInstance } from 'fastify'
import { failure } from '../../base/errors.ts'
import type { Handler, RouteTypes } from './context.ts'

/** The methods that a path may serve. */
export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

const answered = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const

/** Serves a path; every other method of it is refused with the names of those that are. */
export function serve(
  app: FastifyInstance,
  url: string,
  handlers: Partial<Record<Method, Handler>>,
): void {
  for (const method of answered) {
    const handler = method in handlers ? handlers[method as Method] : undefined
    if (handler !== undefined) app.route<RouteTypes>({ method, url, handler })
  }
  refuseOthers(app, url, Object.keys(handlers))
}

/** Refuses all methods of a path but those named. */
export function refuseOthers(app: FastifyInstance, url: string, served: readonly string[]): void {
  const allowed = served.join(', ')
  app.route({
    method: answered.filter(method => !served.includes(method)),
    url,
    async handler(request, reply) {
      reply.header('allow', allowed)
      const [path = ''] = request.url.split('?')
      throw failure('methodNotAllowed', { method: request.method, path, allowed })
    },
  })
}
