import type { FastifyInstance } from 'fastify'
import { failure } from '../../base/errors.ts'
import { findCondition } from '../../resources/condition.ts'
import { isName } from '../../resources/metadata.ts'
import { virtualMachineKind } from '../../resources/virtual-machine.ts'
import { readValue } from './body.ts'
import { type ApiContext, clientSignal, referenceOf } from './context.ts'
import { collectionPath } from './resource-routes.ts'
import { serve } from './routes.ts'
import type { CommitRequest } from './subresources.ts'
import { addWarnings } from './warning.ts'

/**
 * Serves the making of an image of a machine. The answer comes when it is made; how far it is
 * stands in the image's status meanwhile, and a client that leaves ends it.
 */
export function commitRoute(app: FastifyInstance, context: ApiContext): void {
  const { objects, subresources } = context
  serve(app, `${collectionPath(virtualMachineKind)}/:name/commit`, {
    async POST(request, reply) {
      const wanted = commitRequest(await readValue(request.raw, context))
      const machine = await objects.get(
        virtualMachineKind,
        referenceOf(virtualMachineKind, request),
      )
      const signal = clientSignal(context, reply)
      const image = await subresources.commitMachine(machine, { ...wanted, signal })
      const consistent = findCondition(image.status?.conditions, 'FileSystemsConsistent')
      if (consistent?.status === 'False') addWarnings(reply, [consistent.message])
      return image
    },
  })
}

const descriptionLength = 1024

function commitRequest(body: unknown): Omit<CommitRequest, 'signal'> {
  const { image, description, pinned, ...others } = { ...(body as Record<string, unknown>) }
  const [unknown] = Object.keys(others)
  if (unknown !== undefined) throw failure('badRequest', { detail: `unknown field "${unknown}"` })
  if (typeof image !== 'string' || !isName(image)) {
    throw failure('badRequest', { detail: 'image must be the name of the new image' })
  }
  if (pinned !== undefined && typeof pinned !== 'boolean') {
    throw failure('badRequest', { detail: 'pinned must be true or false' })
  }
  if (description === undefined) return { name: image, pinned: pinned ?? false }
  if (typeof description !== 'string' || description.length > descriptionLength) {
    const detail = `description must be a text of at most ${descriptionLength} characters`
    throw failure('badRequest', { detail })
  }
  return { name: image, description, pinned: pinned ?? false }
}
