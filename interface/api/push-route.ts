import { once } from 'node:events'
import type { FastifyInstance } from 'fastify'
import { failure } from '../../base/errors.ts'
import { imageKind } from '../../resources/image.ts'
import { isName } from '../../resources/metadata.ts'
import { readValue } from './body.ts'
import { type ApiContext, clientSignal, referenceOf } from './context.ts'
import { serve } from './routes.ts'
import { asFailure, failureStatus } from './status.ts'
import type { PushRequest } from './subresources.ts'

/**
 * Serves the sending of an image to a registry. The answer is one JSON value a line: how far it is,
 * and last either what was pushed or a Status that says why it was not.
 */
export function pushRoute(app: FastifyInstance, context: ApiContext, path: string): void {
  const { objects, subresources, log, limits } = context
  serve(app, path, {
    async POST(request, reply) {
      const wanted = pushRequest(await readValue(request.raw, context))
      const image = await objects.get(imageKind, referenceOf(imageKind, request))
      const signal = clientSignal(context, reply)
      reply.hijack()
      const { raw } = reply
      raw.writeHead(200, { 'content-type': 'application/json;stream=push' })
      raw.flushHeaders()
      const say = async (line: unknown): Promise<void> => {
        if (!raw.write(`${JSON.stringify(line)}\n`)) await once(raw, 'drain', { signal })
      }
      try {
        for await (const event of subresources.pushImage(image, { ...wanted, signal })) {
          await say(event)
        }
      } catch (thrown) {
        if (!signal.aborted) {
          await say(failureStatus(asFailure(thrown, log, limits.requestBodyBytes))).catch(() => {})
        }
      }
      raw.end()
      return reply
    },
  })
}

function pushRequest(body: unknown): PushRequest {
  const { reference, pushSecret, ...others } = { ...(body as Record<string, unknown>) }
  const [unknown] = Object.keys(others)
  if (unknown !== undefined) throw failure('badRequest', { detail: `unknown field "${unknown}"` })
  if (typeof reference !== 'string' || reference === '' || reference.length > 512) {
    throw failure('badRequest', { detail: 'reference must say where: HOST[:PORT]/NAME[:TAG]' })
  }
  if (pushSecret === undefined) return { reference }
  if (typeof pushSecret !== 'string' || !isName(pushSecret)) {
    throw failure('badRequest', { detail: 'pushSecret must be the name of a Secret' })
  }
  return { reference, pushSecret }
}
