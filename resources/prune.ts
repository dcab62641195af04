import type { TSchema } from 'typebox'
import type { ErrorCause } from '../base/errors.ts'
import { nearest } from './nearest.ts'

/** Deeper input is not looked into: our schemas are far flatter, and bodies are bounded before. */
const mostLevels = 100

/** An input without the fields that its schema does not have, and those fields. */
export interface Pruned {
  value: unknown
  unknown: ErrorCause[]
}

/**
 * Walks the input beside its schema. Every name that the schema does not have is left out of the
 * result and reported by its path, with the nearest known name. The input is not touched.
 */
export function pruneUnknown(schema: TSchema, input: unknown): Pruned {
  const unknown: ErrorCause[] = []
  return { value: prune(schema, input, '', unknown, 0), unknown }
}

function prune(
  schema: TSchema,
  input: unknown,
  path: string,
  unknown: ErrorCause[],
  level: number,
): unknown {
  if (level > mostLevels) return input
  if (Array.isArray(input)) {
    const items = (schema as { items?: TSchema }).items
    if (items === undefined) return input
    return input.map((item, index) => prune(items, item, `${path}[${index}]`, unknown, level + 1))
  }
  const properties = (schema as { properties?: Record<string, TSchema> }).properties
  if (properties === undefined || typeof input !== 'object' || input === null) return input
  const kept: [string, unknown][] = []
  for (const [name, value] of Object.entries(input)) {
    const field = path === '' ? name : `${path}.${name}`
    const known = Object.hasOwn(properties, name) ? properties[name] : undefined
    if (known === undefined) {
      unknown.push({ field, message: unknownMessage(name, Object.keys(properties)) })
    } else {
      kept.push([name, prune(known, value, field, unknown, level + 1)])
    }
  }
  return Object.fromEntries(kept)
}

function unknownMessage(name: string, known: readonly string[]): string {
  const meant = nearest(name, known)
  return meant === undefined ? 'unknown field' : `unknown field; did you mean ${meant}?`
}
