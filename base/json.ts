import { assert } from './errors.ts'

/** What JSON can say (RFC 8259). Values are immutable everywhere: to change one, make another. */
export type JsonValue =
  | string
  | number
  | boolean
  | null
  | readonly JsonValue[]
  | { readonly [name: string]: JsonValue | undefined }

/** Deeper nesting is refused, so that no recursion over a value runs out of stack. */
const mostLevels = 200

/**
 * A frozen copy of `value` that shares nothing with it, and the text of that copy. Members that are
 * undefined are left out, as JSON.stringify does; everything else that JSON can't say (a Date, NaN,
 * a function, a cycle) is our own mistake and fails an assertion rather than being changed
 * silently.
 */
export function copyJson(value: JsonValue): { copy: JsonValue; text: string } {
  assertJson(value, 0)
  const text = JSON.stringify(value)
  return { copy: parseFrozenJson(text), text }
}

/** Parses JSON of our own making into a frozen value. Throws SyntaxError on anything else. */
export function parseFrozenJson(text: string): JsonValue {
  const value: JsonValue = JSON.parse(text)
  freezeJson(value)
  return value
}

function freezeJson(value: JsonValue | undefined): void {
  if (typeof value !== 'object' || value === null) return
  for (const member of Object.values(value)) freezeJson(member)
  Object.freeze(value)
}

function assertJson(value: unknown, level: number): void {
  assert(level <= mostLevels, `JSON value nested deeper than ${mostLevels} levels`)
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return
  if (typeof value === 'number') {
    assert(Number.isFinite(value), `${value} is no JSON number`)
    return
  }
  assert(typeof value === 'object', `a ${typeof value} is no JSON value`)
  if (Array.isArray(value)) {
    for (const member of value) assertJson(member, level + 1)
    return
  }
  const prototype: unknown = Object.getPrototypeOf(value)
  assert(prototype === Object.prototype || prototype === null, 'only plain objects are JSON values')
  for (const member of Object.values(value)) {
    if (member !== undefined) assertJson(member, level + 1)
  }
}
