import { isDeepStrictEqual } from 'node:util'
import { failure } from '../../base/errors.ts'
import { isRecord } from './merge-patch.ts'

/** Operations of one patch; Kubernetes takes 10,000, but copies could then grow without bound. */
const mostOperations = 1_000
/** Characters that copies may add, all together. */
const mostCopied = 1024 * 1024

interface Operation {
  op: string
  path: string[]
  from: string[]
  value: unknown
}

/**
 * JSON Patch (RFC 6902) to a clone of the target.
 * @throws badRequest when the patch is malformed, names what is not there, or a test of it fails
 */
export function applyJsonPatch(target: unknown, patch: unknown): unknown {
  if (!Array.isArray(patch) || patch.length > mostOperations) {
    throw refusal(`a JSON patch is a list of at most ${mostOperations} operations`)
  }
  // The document stands in a holder, so that even its root can be replaced.
  const holder: Holder = { root: structuredClone(target) }
  let copied = 0
  for (const [index, item] of patch.entries()) {
    const operation = parseOperation(item, index)
    if (operation.op === 'copy') {
      const value = JSON.stringify(read(holder, operation.from))
      copied += value.length
      if (copied > mostCopied) throw refusal('the copies of a JSON patch are too large')
      add(holder, operation.path, JSON.parse(value))
    } else {
      applyOperation(holder, operation)
    }
  }
  return holder.root
}

interface Holder {
  root: unknown
}

function applyOperation(holder: Holder, { op, path, from, value }: Operation): void {
  if (op === 'add') add(holder, path, structuredClone(value))
  else if (op === 'remove') remove(holder, path)
  else if (op === 'replace') {
    remove(holder, path)
    add(holder, path, structuredClone(value))
  } else if (op === 'move') {
    const isInside = from.length < path.length && from.every((step, at) => step === path[at])
    if (isInside) throw refusal(`${pointer(from)} can not be moved into itself`)
    const moved = read(holder, from)
    remove(holder, from)
    add(holder, path, moved)
  } else if (!isDeepStrictEqual(read(holder, path), value)) {
    throw refusal(`the test of ${pointer(path)} failed`)
  }
}

function parseOperation(item: unknown, index: number): Operation {
  if (!isRecord(item)) throw refusal(`operation ${index} is no object`)
  const { op, path, from, value } = item
  const takesFrom = op === 'move' || op === 'copy'
  const takesValue = op === 'add' || op === 'replace' || op === 'test'
  if (!takesFrom && !takesValue && op !== 'remove') {
    throw refusal(`operation ${index} has no op that RFC 6902 knows`)
  }
  if (takesValue && value === undefined) throw refusal(`operation ${index} has no value`)
  return { op, path: steps(path, index), from: takesFrom ? steps(from, index) : [], value }
}

/** JSON Pointer, RFC 6901. */
function steps(text: unknown, index: number): string[] {
  if (typeof text !== 'string' || (text !== '' && !text.startsWith('/'))) {
    throw refusal(`operation ${index} has a path that is no JSON pointer`)
  }
  const path = text.split('/').slice(1)
  return path.map(step => step.replaceAll('~1', '/').replaceAll('~0', '~'))
}

function pointer(path: readonly string[]): string {
  return path
    .map(step => `/${step}`)
    .join('')
    .slice(0, 200)
}

function read(holder: Holder, path: readonly string[]): unknown {
  return path.reduce<unknown>((value, step, at) => {
    const member = memberOf(value, step)
    if (member === undefined) throw refusal(`there is nothing at ${pointer(path.slice(0, at + 1))}`)
    return member
  }, holder.root)
}

function memberOf(value: unknown, step: string): unknown {
  if (Array.isArray(value)) return value[indexOf(step, value.length)]
  return isRecord(value) && Object.hasOwn(value, step) ? value[step] : undefined
}

function add(holder: Holder, path: readonly string[], value: unknown): void {
  const last = path.at(-1)
  if (last === undefined) {
    holder.root = value
    return
  }
  const parent = read(holder, path.slice(0, -1))
  if (Array.isArray(parent)) {
    const index = last === '-' ? parent.length : indexOf(last, parent.length + 1)
    if (!Number.isInteger(index)) throw refusal(`there is no place at ${pointer(path)}`)
    parent.splice(index, 0, value)
  } else if (isRecord(parent) && last !== '__proto__') {
    Object.defineProperty(parent, last, {
      value,
      writable: true,
      enumerable: true,
      configurable: true,
    })
  } else {
    throw refusal(`nothing can be put at ${pointer(path)}`)
  }
}

function remove(holder: Holder, path: readonly string[]): void {
  const last = path.at(-1)
  read(holder, path)
  if (last === undefined) {
    holder.root = null
    return
  }
  const parent = read(holder, path.slice(0, -1))
  if (Array.isArray(parent)) parent.splice(indexOf(last, parent.length), 1)
  else if (isRecord(parent)) delete parent[last]
}

/** The place in a list of so many; NaN when the step names none. */
function indexOf(step: string, length: number): number {
  const index = /^(0|[1-9]\d{0,8})$/.test(step) ? Number(step) : Number.NaN
  return index < length ? index : Number.NaN
}

const refusal = (detail: string) => failure('badRequest', { detail })
