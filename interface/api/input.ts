import type { FastifyReply } from 'fastify'
import { failure } from '../../base/errors.ts'
import { apiVersionOf, type Kind, type Resource } from '../../resources/kind.ts'
import { pruneUnknown } from '../../resources/prune.ts'
import type { PathParameters, Query } from './context.ts'
import { parameter } from './context.ts'
import { isRecord } from './merge-patch.ts'
import { addWarnings } from './warning.ts'

/**
 * What becomes of fields that the schema does not have (Kubernetes API concepts, "Field
 * validation").
 */
type FieldValidation = 'Strict' | 'Warn' | 'Ignore'

/** More warnings than this are not sent. */
const mostWarnings = 20

/** Where an object comes from: the request that brought it. */
export interface InputSource {
  params: PathParameters
  query: Query
  reply: FastifyReply
}

/**
 * What a client sent as an object of a kind: its type and its place are those of the path, fields
 * that are unknown are treated as the request wants it. The schema is checked where it is stored.
 * @throws badRequest when it is no object, or names another place than the path
 */
export function objectFrom(kind: Kind, value: unknown, source: InputSource): Resource {
  if (!isRecord(value)) throw failure('badRequest', { detail: 'the body must be one object' })
  const validation = fieldValidationOf(source.query)
  const known = validation === 'Strict' ? value : pruned(kind, value, validation, source.reply)
  const metadata = known['metadata'] ?? {}
  if (!isRecord(metadata)) throw failure('badRequest', { detail: 'metadata must be an object' })
  const { managedFields: _, ...place } = metadata
  const { name, namespace } = source.params
  if (name !== undefined) setPlace(place, 'name', name)
  if (namespace !== undefined) setPlace(place, 'namespace', namespace)
  // Its members still have any type: the stores of objects validate before they look at them.
  return {
    ...known,
    apiVersion: known['apiVersion'] ?? apiVersionOf(kind),
    kind: known['kind'] ?? kind.kind,
    metadata: place,
  } as Resource
}

function setPlace(metadata: Record<string, unknown>, field: string, wanted: string): void {
  const given = metadata[field]
  if (given !== undefined && given !== '' && given !== wanted) {
    const detail = `metadata.${field} of the body is not the ${wanted.slice(0, 253)} of the path`
    throw failure('badRequest', { detail })
  }
  metadata[field] = wanted
}

function fieldValidationOf(query: Query): FieldValidation {
  const text = parameter(query, 'fieldValidation') ?? 'Strict'
  if (text === 'Strict' || text === 'Warn' || text === 'Ignore') return text
  throw failure('badRequest', { detail: 'fieldValidation must be Strict, Warn or Ignore' })
}

function pruned(
  kind: Kind,
  value: Record<string, unknown>,
  validation: FieldValidation,
  reply: FastifyReply,
): Record<string, unknown> {
  const result = pruneUnknown(kind.schema, value)
  if (validation === 'Warn' && result.unknown.length > 0) {
    const sentences = result.unknown.map(({ field, message }) => `${message}: ${field}`)
    addWarnings(reply, sentences.slice(0, mostWarnings))
  }
  return isRecord(result.value) ? result.value : {}
}
