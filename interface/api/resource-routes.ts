import type { FastifyInstance, FastifyReply } from 'fastify'
import { objectNotFound } from '../../cluster/object-record.ts'
import { parseResourceVersion } from '../../cluster/object-watch.ts'
import type { ListSelection } from '../../cluster/objects.ts'
import { apiVersionOf, type Kind, type Resource } from '../../resources/kind.ts'
import { negotiate } from './accept.ts'
import { readValue } from './body.ts'
import {
  type ApiContext,
  type ApiRequest,
  booleanParameter,
  type Handler,
  integerParameter,
  isDryRun,
  parameter,
  type Query,
  referenceOf,
} from './context.ts'
import { readDeleteOptions } from './delete-options.ts'
import { objectFrom } from './input.ts'
import { readPatch } from './patch.ts'
import { includeOf, listMetadata, listOf, tableOf } from './representation.ts'
import { serve } from './routes.ts'
import { type Matcher, parseFieldSelector, parseLabelSelector } from './selector.ts'
import { successStatus } from './status.ts'
import { statusHandlers } from './status-routes.ts'
import { serveWatch } from './watch-route.ts'

/** Where a kind is served: `/apis/macfleet.dev/v1`, or `/api/v1` for the core group. */
export function groupPath(kind: Kind): string {
  return kind.group === '' ? `/api/${kind.version}` : `/apis/${apiVersionOf(kind)}`
}

/** The path of a kind's objects, in one namespace where it has them. */
export function collectionPath(kind: Kind): string {
  const scope = kind.namespaced ? '/namespaces/:namespace' : ''
  return `${groupPath(kind)}${scope}/${kind.plural}`
}

/** Serves a kind as Kubernetes does (kubernetes.io/docs/reference/using-api/api-concepts). */
export function resourceRoutes(app: FastifyInstance, context: ApiContext, kind: Kind): void {
  const list = listHandler(context, kind)
  const collection = collectionPath(kind)
  serve(app, collection, { GET: list, POST: createHandler(context, kind) })
  if (kind.namespaced) serve(app, `${groupPath(kind)}/${kind.plural}`, { GET: list })
  const put: Handler = async (request, reply) => {
    const object = await bodyObject(context, kind, request, reply)
    return context.objects.replace(kind, object, { dryRun: isDryRun(request.query) })
  }
  serve(app, `${collection}/:name`, {
    GET: async (request, reply) => {
      const representation = negotiate(request.headers.accept)
      const object = await context.objects.get(kind, referenceOf(kind, request))
      if (representation === 'object') return reply.send(object)
      const { resourceVersion = '' } = object.metadata
      return tableOf(kind, [object], { resourceVersion }, tableOptions(context, request.query))
    },
    PUT: put,
    PATCH: patchHandler(context, kind),
    DELETE: deleteHandler(context, kind),
  })
  if (kind.hasStatus) serve(app, `${collection}/:name/status`, statusHandlers(context, kind))
}

const tableOptions = (context: ApiContext, query: Query) => ({
  include: includeOf(query),
  nowMs: context.clock.wallMs(),
})

/** The objects that a query selects; undefined when it selects all. */
export function matcherOf(kind: Kind, query: Query): Matcher | undefined {
  const labelSelector = parameter(query, 'labelSelector')
  const fieldSelector = parameter(query, 'fieldSelector')
  const matchers: Matcher[] = []
  if (labelSelector !== undefined) matchers.push(parseLabelSelector(labelSelector))
  if (fieldSelector !== undefined) matchers.push(parseFieldSelector(kind, fieldSelector))
  if (matchers.length === 0) return undefined
  return object => matchers.every(matches => matches(object))
}

function listHandler(context: ApiContext, kind: Kind): Handler {
  return async (request, reply) => {
    const { query, params } = request
    const representation = negotiate(request.headers.accept)
    const include = includeOf(query)
    const matches = matcherOf(kind, query)
    const namespace = kind.namespaced ? params.namespace : undefined
    if (booleanParameter(query, 'watch')) {
      const view = { kind, namespace, matches, representation, include }
      return serveWatch(context, view, request, reply)
    }
    const version = parameter(query, 'resourceVersion')
    if (version !== undefined) parseResourceVersion(version)
    const token = parameter(query, 'continue')
    const selection: ListSelection<Resource> = {
      limit: Math.min(integerParameter(query, 'limit') || Infinity, context.limits.listPage),
      ...(namespace === undefined ? {} : { namespace }),
      ...(matches === undefined ? {} : { matches }),
      ...(token === undefined ? {} : { continue: token }),
    }
    const list = await context.objects.list(kind, selection)
    if (representation === 'object') return listOf(kind, list)
    return tableOf(kind, list.items, listMetadata(list), tableOptions(context, query))
  }
}

async function bodyObject(
  context: ApiContext,
  kind: Kind,
  request: ApiRequest,
  reply: FastifyReply,
): Promise<Resource> {
  const value = await readValue(request.raw, context)
  return objectFrom(kind, value, { params: request.params, query: request.query, reply })
}

function createHandler(context: ApiContext, kind: Kind): Handler {
  return async (request, reply) => {
    const object = await bodyObject(context, kind, request, reply)
    const options = { dryRun: isDryRun(request.query) }
    const created = await context.objects.create(kind, object, options)
    return reply.code(201).send(created)
  }
}

function patchHandler(context: ApiContext, kind: Kind): Handler {
  return async (request, reply) => {
    const { params, query } = request
    const reference = referenceOf(kind, request)
    const patch = await readPatch(request.raw, context)
    const patched = await context.objects.change(
      kind,
      reference,
      // The server's own record of who manages which field is not for clients to write.
      object => {
        const { managedFields } = object.metadata
        const next = objectFrom(kind, patch(object), { params, query, reply })
        if (managedFields !== undefined) next.metadata.managedFields = managedFields
        return next
      },
      { dryRun: isDryRun(query) },
    )
    if (patched === undefined) throw objectNotFound(kind, reference.name)
    return patched
  }
}

function deleteHandler(context: ApiContext, kind: Kind): Handler {
  return async request => {
    const value = await readValue(request.raw, context)
    const options = readDeleteOptions(value, request.query)
    const reference = referenceOf(kind, request)
    const removed = await context.objects.remove(kind, reference, options)
    const { name, uid, finalizers } = removed.metadata
    if ((finalizers ?? []).length > 0) return removed
    return successStatus({ name, group: kind.group, kind: kind.plural, ...(uid ? { uid } : {}) })
  }
}
