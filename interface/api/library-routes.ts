import type { FastifyInstance } from 'fastify'
import { failure } from '../../base/errors.ts'
import { type ApiContext, clientSignal, parameter } from './context.ts'
import { serve } from './routes.ts'

/** Serves what lies in the library of this host; nothing is ever written there. */
export function libraryRoutes(app: FastifyInstance, context: ApiContext): void {
  const { subresources } = context
  serve(app, '/images-library', {
    async GET(_, reply) {
      const answer = await subresources.listLibrary({ signal: clientSignal(context, reply) })
      return reply.type('application/json').send(JSON.stringify(answer))
    },
  })
  serve(app, '/images-library/check', {
    async GET(request, reply) {
      const name = parameter(request.query, 'name')
      if (name === undefined || name === '') {
        throw failure('badRequest', { detail: 'name must say what is to be checked' })
      }
      const answer = await subresources.checkLibrary(name, {
        signal: clientSignal(context, reply),
      })
      return reply.type('application/json').send(JSON.stringify(answer))
    },
  })
}
