import { assertPreconditions, objectNotFound } from '../../cluster/object-record.ts'
import type { Kind, Resource } from '../../resources/kind.ts'
import { readValue } from './body.ts'
import { type ApiContext, type ApiRequest, type Handler, isDryRun, referenceOf } from './context.ts'
import { objectFrom } from './input.ts'
import { readPatch } from './patch.ts'

/** Serves a kind's status subresource: as the object, but of a write only the status is taken. */
export function statusHandlers(context: ApiContext, kind: Kind) {
  const write = async (request: ApiRequest, next: (object: Resource) => Resource) => {
    const reference = referenceOf(kind, request)
    const written = await context.objects.changeStatus(
      kind,
      reference,
      (_, object) => {
        const wanted = next(object)
        assertPreconditions(kind, object, wanted.metadata)
        return wanted.status
      },
      { dryRun: isDryRun(request.query) },
    )
    if (written === undefined) throw objectNotFound(kind, reference.name)
    return written
  }
  const GET: Handler = request => context.objects.get(kind, referenceOf(kind, request))
  const PUT: Handler = async (request, reply) => {
    const { params, query } = request
    const value = await readValue(request.raw, context)
    const given = objectFrom(kind, value, { params, query, reply })
    return write(request, () => given)
  }
  const PATCH: Handler = async (request, reply) => {
    const { params, query } = request
    const patch = await readPatch(request.raw, context)
    return write(request, object => objectFrom(kind, patch(object), { params, query, reply }))
  }
  return { GET, PUT, PATCH }
}
