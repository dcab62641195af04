import { isDeepStrictEqual } from 'node:util'
import { type ErrorCause, failure, type MacfleetError } from '../base/errors.ts'
import type { JsonValue } from '../base/json.ts'
import { objectKey } from '../resources/keys.ts'
import { type Kind, type Resource, resourceName } from '../resources/kind.ts'
import { isName, type Metadata } from '../resources/metadata.ts'
import { invalid } from '../resources/validate.ts'
import type { Entry } from './store/store.ts'

/** Names an object of a kind. */
export interface ObjectReference {
  name: string
  /** Of namespaced kinds only. */
  namespace?: string
}

/**
 * The object in a store entry, with the entry's revision as its resourceVersion. Sound because only
 * what passed the kind's schema was stored. The parts below metadata are frozen and shared.
 */
export function objectOf<T extends Resource>(entry: Entry, revision = entry.modRevision): T {
  const stored = entry.value as unknown as T
  return { ...stored, metadata: { ...stored.metadata, resourceVersion: String(revision) } }
}

/** What is stored of an object: all but the resourceVersion, which is the entry's own revision. */
export function recordOf(object: Resource): JsonValue {
  const { resourceVersion: _, ...metadata } = object.metadata
  // Objects passed their schema or came out of the store: they are JSON, which the store asserts.
  return { ...object, metadata } as unknown as JsonValue
}

/**
 * The store key of an object; undefined for a reference that no object of the kind can have. Names
 * come from users (a machine names its image), and the store takes keys of printable ASCII only.
 */
export function keyOf(kind: Kind, reference: ObjectReference): string | undefined {
  const { name, namespace } = reference
  if (!isName(name) || (kind.namespaced && !isName(namespace ?? ''))) return undefined
  return objectKey(kind, reference)
}

/** The error for an object that is not there, as Kubernetes shapes it. */
export function objectNotFound(kind: Kind, name: string): MacfleetError {
  const object = { kind: kind.plural, group: kind.group, name }
  return failure('notFound', { resource: resourceName(kind), name }, { object })
}

/** The error for a name that is taken. */
export function objectExists(kind: Kind, name: string): MacfleetError {
  const object = { kind: kind.plural, group: kind.group, name }
  return failure('alreadyExists', { resource: resourceName(kind), name }, { object })
}

/** The error for an object that is not, or no longer, the one that was read. */
export function objectConflict(kind: Kind, name: string): MacfleetError {
  const object = { kind: kind.plural, group: kind.group, name }
  return failure('conflict', { resource: resourceName(kind), name }, { object })
}

/** What an effect may be bound to: the very object, and the very state of it, that was read. */
export interface Preconditions {
  uid?: string
  resourceVersion?: string
}

/** Throws conflict unless the object is the one that the caller has seen. */
export function assertPreconditions(kind: Kind, current: Resource, wanted: Preconditions): void {
  const { name, uid, resourceVersion } = current.metadata
  const sameUid = wanted.uid === undefined || wanted.uid === uid
  // An empty resourceVersion means "any", as in Kubernetes.
  const sameVersion = !wanted.resourceVersion || wanted.resourceVersion === resourceVersion
  if (!sameUid || !sameVersion) throw objectConflict(kind, name)
}

/** Refuses a change of a path that the kind keeps for good. */
export function assertImmutable(kind: Kind, current: Resource, next: Resource): void {
  const causes: ErrorCause[] = (kind.immutable ?? [])
    .filter(path => !isDeepStrictEqual(valueAt(current, path), valueAt(next, path)))
    .map(field => ({ field, message: 'can not be changed after creation' }))
  if (causes.length > 0) throw invalid(kind, next, causes)
}

function valueAt(object: unknown, path: string): unknown {
  return path.split('.').reduce<unknown>((value, step) => {
    if (typeof value !== 'object' || value === null) return undefined
    return Object.getOwnPropertyDescriptor(value, step)?.value
  }, object)
}

/** What of an object is the user's: everything but metadata and, where the kind has one, status. */
export function desiredPart(kind: Kind, object: Resource): Record<string, unknown> {
  const { metadata: _, ...rest }: { metadata: Metadata; status?: unknown } = object
  if (kind.hasStatus) delete rest.status
  return rest
}

/** Metadata as the user may write it, beside what the server gave to the object that is there. */
export function mergeMetadata(kind: Kind, current: Metadata, given: Metadata): Metadata {
  const { labels, annotations, ownerReferences, managedFields } = given
  // The kind's own finalizer stands for a guest or for layers: only releaseFinalizer() takes it
  // away.
  const isHeld = kind.finalizer !== undefined && current.finalizers?.includes(kind.finalizer)
  const finalizers = withFinalizer(given.finalizers, isHeld ? kind.finalizer : undefined)
  return withoutUndefined({
    ...current,
    labels,
    annotations,
    ownerReferences,
    managedFields,
    finalizers,
  })
}

/**
 * The list with one more finalizer, without doubles; undefined for none. What is no list stays as
 * it is: the input was not validated yet, and validation shall name it.
 */
export function withFinalizer(
  given: string[] | undefined,
  finalizer: string | undefined,
): string[] | undefined {
  if (given !== undefined && !Array.isArray(given)) return given
  const all = [...new Set([...(given ?? []), ...(finalizer === undefined ? [] : [finalizer])])]
  return all.length === 0 ? undefined : all
}

/** A copy without the members that are undefined, so that equal objects compare as equal. */
export function withoutUndefined<T extends object>(value: T): T {
  const kept = Object.entries(value).filter(([, member]) => member !== undefined)
  return Object.fromEntries(kept) as T
}

/**
 * The value as JSON says it: members that are undefined are gone, so equal ones compare as equal.
 */
export function pureJson<T extends object>(value: T): T {
  return JSON.parse(JSON.stringify(value))
}
