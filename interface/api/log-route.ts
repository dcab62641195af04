import { pipeline } from 'node:stream/promises'
import type { FastifyInstance } from 'fastify'
import { messageOf } from '../../base/log.ts'
import { virtualMachineKind } from '../../resources/virtual-machine.ts'
import {
  type ApiContext,
  booleanParameter,
  clientSignal,
  integerParameter,
  referenceOf,
} from './context.ts'
import { collectionPath } from './resource-routes.ts'
import { serve } from './routes.ts'

/** Serves the serial log of a machine, as Kubernetes serves a container's. */
export function logRoute(app: FastifyInstance, context: ApiContext): void {
  const kind = virtualMachineKind
  serve(app, `${collectionPath(kind)}/:name/log`, {
    async GET(request, reply) {
      const { query } = request
      const tailLines = integerParameter(query, 'tailLines')
      const limitBytes = integerParameter(query, 'limitBytes')
      const follow = booleanParameter(query, 'follow')
      const machine = await context.objects.get(kind, referenceOf(kind, request))
      const signal = clientSignal(context, reply)
      const bytes = await context.subresources.openLog(machine, {
        follow,
        signal,
        ...(tailLines === undefined ? {} : { tailLines }),
        ...(limitBytes === undefined ? {} : { limitBytes }),
      })
      reply.hijack()
      reply.raw.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' })
      // Whoever follows a silent machine shall see at once that the request was taken.
      reply.raw.flushHeaders()
      try {
        await pipeline(bytes, reply.raw, { signal })
      } catch (error) {
        if (!signal.aborted) context.log.warn({ error: messageOf(error) }, 'a log broke off')
        reply.raw.destroy()
      }
      return reply
    },
  })
}
