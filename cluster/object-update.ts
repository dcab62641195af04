import { isDeepStrictEqual } from 'node:util'
import type { Kind, Resource } from '../resources/kind.ts'
import { invalid, validate } from '../resources/validate.ts'
import { askGuards } from './object-guards.ts'
import {
  assertImmutable,
  assertPreconditions,
  desiredPart,
  keyOf,
  mergeMetadata,
  type ObjectReference,
  objectConflict,
  objectOf,
  pureJson,
  recordOf,
  withoutUndefined,
} from './object-record.ts'
import type { ObjectsContext, WriteOptions } from './object-types.ts'
import type { Compare, Operation } from './store/store.ts'

/** Lost races before a write gives up; each means that somebody else's write went through. */
const mostTries = 32

/** What should become of an object: the same again is no write. */
interface Next<T> {
  object: T
  /** What else must hold when it is written. */
  compare?: readonly Compare[]
}

/**
 * Reads, computes, writes; from the start again when the object changed in between.
 * @param compute returns undefined to leave the object as it is
 * @returns undefined when the object is not there
 */
export async function casLoop<T extends Resource>(
  context: ObjectsContext,
  kind: Kind<T>,
  reference: ObjectReference,
  options: WriteOptions,
  compute: (current: T) => Promise<Next<T> | undefined>,
): Promise<T | undefined> {
  const key = keyOf(kind, reference)
  if (key === undefined) return undefined
  for (let tries = 0; tries < mostTries; tries++) {
    const { entry } = await context.store.get(key)
    if (entry === undefined) return undefined
    const current = objectOf<T>(entry)
    const next = await compute(current)
    if (next === undefined) return current
    const value = recordOf(next.object)
    const gone = isGone(next.object)
    if (!gone && isDeepStrictEqual(value, entry.value)) return current
    if (options.dryRun) return next.object
    const operation: Operation = gone ? { delete: key } : { put: key, value }
    const { succeeded, revision } = await context.store.transaction({
      compare: [{ key, modRevision: entry.modRevision }, ...(next.compare ?? [])],
      operations: [operation],
    })
    if (!succeeded) continue
    const metadata = { ...next.object.metadata, resourceVersion: String(revision) }
    return { ...next.object, metadata }
  }
  throw objectConflict(kind, reference.name)
}

/** A deleting object that nobody holds any longer. */
function isGone(object: Resource): boolean {
  const { deletionTimestamp, finalizers } = object.metadata
  return deletionTimestamp !== undefined && (finalizers ?? []).length === 0
}

/** See Objects.replace and Objects.change. */
export function updateObject<T extends Resource>(
  context: ObjectsContext,
  kind: Kind<T>,
  reference: ObjectReference,
  mutate: (object: T) => T | undefined,
  options: WriteOptions,
): Promise<T | undefined> {
  return casLoop(context, kind, reference, options, async current => {
    const given = mutate(structuredClone(current))
    if (given === undefined) return undefined
    assertPreconditions(kind, current, given.metadata)
    const object = merge(kind, current, given)
    const compare = await askGuards(context, kind, guard => guard.replace?.(object, current))
    return { object, compare }
  })
}

function merge<T extends Resource>(kind: Kind<T>, current: T, given: T): T {
  checkIdentity(kind, current, given)
  const metadata = mergeMetadata(kind, current.metadata, given.metadata)
  // A deleting object is on its way: nobody may begin to hold it.
  const held = current.metadata.finalizers ?? []
  if (current.metadata.deletionTimestamp !== undefined) {
    const added = (metadata.finalizers ?? []).find(finalizer => !held.includes(finalizer))
    if (added !== undefined) {
      const message = `${added} can not be added while the object is being deleted`
      throw invalid(kind, given, [{ field: 'metadata.finalizers', message }])
    }
  }
  const candidate = { ...given, metadata, status: kind.hasStatus ? current.status : given.status }
  const object = validate(kind, pureJson(candidate))
  assertImmutable(kind, current, object)
  if (isDeepStrictEqual(desiredPart(kind, current), desiredPart(kind, object))) return object
  const generation = (current.metadata.generation ?? 0) + 1
  return { ...object, metadata: { ...object.metadata, generation } }
}

function checkIdentity(kind: Kind, current: Resource, given: Resource): void {
  for (const field of ['name', 'namespace'] as const) {
    const value = given.metadata[field]
    if (value === current.metadata[field]) continue
    const message = `can not be changed from ${current.metadata[field]}`
    throw invalid(kind, given, [{ field: `metadata.${field}`, message }])
  }
}

/** See Objects.changeStatus. */
export async function updateStatus<T extends Resource>(
  context: ObjectsContext,
  kind: Kind<T>,
  reference: ObjectReference,
  mutate: (status: T['status'] | undefined, object: T) => T['status'] | undefined,
  options: WriteOptions & { uid?: string },
): Promise<T | undefined> {
  let isOther = false
  const object = await casLoop(context, kind, reference, options, async current => {
    isOther = options.uid !== undefined && options.uid !== current.metadata.uid
    if (isOther) return undefined
    const copy = structuredClone(current)
    const status = mutate(copy.status, copy)
    if (status === undefined) return undefined
    return { object: validate(kind, pureJson({ ...current, status })) }
  })
  return isOther ? undefined : object
}

/** See Objects.releaseFinalizer. */
export async function releaseFinalizer(
  context: ObjectsContext,
  kind: Kind,
  reference: ObjectReference,
  held: { finalizer: string; uid: string },
): Promise<void> {
  await casLoop(context, kind, reference, {}, async current => {
    const { uid, finalizers = [] } = current.metadata
    if (uid !== held.uid || !finalizers.includes(held.finalizer)) return undefined
    const left = finalizers.filter(finalizer => finalizer !== held.finalizer)
    const metadata = { ...current.metadata, finalizers: left.length === 0 ? undefined : left }
    return { object: { ...current, metadata: withoutUndefined(metadata) } }
  })
}
