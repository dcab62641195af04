import type { TSchema } from 'typebox'
import { Value } from 'typebox/value'
import { type ErrorCause, failure } from '../base/errors.ts'
import { apiVersionOf, type Kind, type Resource } from './kind.ts'
import { pruneUnknown } from './prune.ts'

/** More wrong fields than this are not listed: the first few are what is read. */
const causesListed = 20

/**
 * Checks an object from outside against its kind and fills in the defaults.
 * @returns a new object; the input is not touched
 * @throws invalid, with one cause per wrong field; an unknown field names the nearest known one
 */
export function validate<Object extends Resource>(kind: Kind<Object>, input: unknown): Object {
  const causes = identityCauses(kind, input)
  if (causes.length === 0) causes.push(...findCauses(kind.schema, input))
  if (causes.length > 0) throw invalid(kind, input, causes)
  const object = Value.Default(kind.schema, structuredClone(input)) as Object
  const wrong = kind.check?.(object) ?? []
  if (wrong.length > 0) throw invalid(kind, input, wrong)
  return object
}

/** The error for an object whose fields are wrong. */
export function invalid(kind: Kind, input: unknown, causes: ErrorCause[]): Error {
  const name = nameOf(input)
  const listed = causes.slice(0, causesListed)
  const detail = listed.map(cause => `${cause.field}: ${cause.message}`).join('; ')
  const object = { kind: kind.kind, group: kind.group, name }
  return failure('invalid', { kind: kind.kind, name, detail }, { causes: listed, object })
}

function nameOf(input: unknown): string {
  const metadata = isRecord(input) ? input['metadata'] : undefined
  const name = isRecord(metadata) ? metadata['name'] : undefined
  return typeof name === 'string' ? name.slice(0, 253) : ''
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function identityCauses(kind: Kind, input: unknown): ErrorCause[] {
  if (!isRecord(input)) return []
  const expected = { apiVersion: apiVersionOf(kind), kind: kind.kind }
  return Object.entries(expected)
    .filter(([field, value]) => input[field] !== value)
    .map(([field, value]) => ({ field, message: `must be ${value}` }))
}

/**
 * Everything that is wrong with an input, defaults filled in first; empty when nothing is. Unknown
 * names are told before anything else, because what follows from a misspelt name only confuses.
 */
export function findCauses(schema: TSchema, input: unknown): ErrorCause[] {
  if (!isRecord(input)) return [{ field: '', message: 'must be an object' }]
  const { unknown } = pruneUnknown(schema, input)
  if (unknown.length > 0) return unknown
  const withDefaults = Value.Default(schema, structuredClone(input))
  const causes = new Map<string, string>()
  for (const error of Value.Errors(schema, withDefaults)) {
    const { field, message } = describe(error)
    // The first complaint of a field is its own; those after it come from alternatives tried.
    if (!causes.has(field)) causes.set(field, message)
  }
  return [...causes].map(([field, message]) => ({ field, message }))
}

type SchemaError = ReturnType<typeof Value.Errors>[number]

function describe(error: SchemaError): ErrorCause {
  const path = error.instancePath.split('/').slice(1).map(unescapePointer).reduce(appendStep, '')
  const params = error.params as { requiredProperties?: string[]; allowedValues?: unknown[] }
  if (error.keyword === 'required' && params.requiredProperties?.[0] !== undefined) {
    return { field: appendStep(path, params.requiredProperties[0]), message: 'is required' }
  }
  if (error.keyword === 'enum' && params.allowedValues !== undefined) {
    return { field: path, message: `must be one of ${params.allowedValues.join(', ')}` }
  }
  if (error.schemaPath.includes('/anyOf')) {
    return { field: path, message: 'must be a quantity such as 2, 500m or 1Gi' }
  }
  if (error.keyword === 'propertyNames') {
    return {
      field: path,
      message: 'has a key that is not a label key (letters, digits, -_. and /)',
    }
  }
  return { field: path, message: error.message }
}

/** JSON Pointer, RFC 6901 section 3. */
function unescapePointer(step: string): string {
  return step.replaceAll('~1', '/').replaceAll('~0', '~')
}

function appendStep(path: string, step: string): string {
  if (/^\d+$/.test(step)) return `${path}[${step}]`
  return path === '' ? step : `${path}.${step}`
}
