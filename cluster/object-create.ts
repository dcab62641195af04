import { timestamp } from '../base/clock.ts'
import { failure } from '../base/errors.ts'
import { randomSuffix, randomUuid } from '../base/random.ts'
import { objectKey } from '../resources/keys.ts'
import type { Kind, Resource } from '../resources/kind.ts'
import type { Metadata } from '../resources/metadata.ts'
import { namespaceKind } from '../resources/namespace.ts'
import { invalid, validate } from '../resources/validate.ts'
import { askGuards } from './object-guards.ts'
import {
  objectConflict,
  objectExists,
  objectNotFound,
  objectOf,
  recordOf,
  withFinalizer,
  withoutUndefined,
} from './object-record.ts'
import type { ObjectsContext, WriteOptions } from './object-types.ts'
import type { Compare, Entry } from './store/store.ts'

/**
 * A namespace that is changed at the same moment, or a generated name that is taken, is tried
 * again.
 */
const mostTries = 8

/** See Objects.create. */
export async function createObject<T extends Resource>(
  context: ObjectsContext,
  kind: Kind<T>,
  given: T,
  options: WriteOptions,
): Promise<T> {
  for (let tries = 0; tries < mostTries; tries++) {
    const object = prepare(context, kind, given)
    const { name } = object.metadata
    const key = objectKey(kind, object.metadata)
    const compare: Compare[] = [{ key, modRevision: 0 }]
    if (kind.namespaced) compare.push(await compareNamespace(context, object.metadata))
    compare.push(...(await askGuards(context, kind, guard => guard.create?.(object))))
    const outcome = options.dryRun
      ? await context.store.get(key).then(({ entry, revision }) => tryResult(entry, revision))
      : await context.store.transaction({
          compare,
          operations: [{ put: key, value: recordOf(object) }],
        })
    if (outcome.succeeded) return withVersion(object, options.dryRun ? '' : outcome.revision)
    const generated = !given.metadata.name && given.metadata.generateName !== undefined
    if (outcome.current[0] !== undefined && !generated) throw objectExists(kind, name)
  }
  throw objectConflict(kind, given.metadata.name)
}

const tryResult = (entry: Entry | undefined, revision: number) => ({
  succeeded: entry === undefined,
  revision,
  current: [entry],
})

function withVersion<T extends Resource>(object: T, revision: number | ''): T {
  if (revision === '') return object
  return { ...object, metadata: { ...object.metadata, resourceVersion: String(revision) } }
}

function prepare<T extends Resource>(context: ObjectsContext, kind: Kind<T>, given: T): T {
  const { status: _, ...withoutStatus } = given
  const base = kind.hasStatus ? withoutStatus : given
  const metadata = newMetadata(context, kind, given.metadata)
  const object = validate(kind, { ...base, metadata })
  checkScope(kind, object)
  return object
}

function newMetadata(context: ObjectsContext, kind: Kind, given: Metadata): Metadata {
  const { name, namespace, generateName, labels, annotations, ownerReferences, managedFields } =
    given
  return withoutUndefined({
    name: !name && generateName ? `${generateName}${randomSuffix(context.random)}` : name,
    namespace,
    generateName,
    labels,
    annotations,
    ownerReferences,
    managedFields,
    finalizers: withFinalizer(given.finalizers, kind.finalizer),
    uid: randomUuid(context.random),
    generation: 1,
    creationTimestamp: timestamp(context.clock),
  })
}

function checkScope(kind: Kind, object: Resource): void {
  const hasNamespace = object.metadata.namespace !== undefined
  if (hasNamespace === kind.namespaced) return
  const message = kind.namespaced ? 'is required' : `a ${kind.singular} has no namespace`
  throw invalid(kind, object, [{ field: 'metadata.namespace', message }])
}

/** The namespace must be there, and still be as it was read when the object is written. */
async function compareNamespace(context: ObjectsContext, metadata: Metadata): Promise<Compare> {
  const name = metadata.namespace ?? ''
  const key = objectKey(namespaceKind, { name })
  const { entry } = await context.store.get(key)
  if (entry === undefined) throw objectNotFound(namespaceKind, name)
  if (objectOf(entry).metadata.deletionTimestamp !== undefined) {
    throw failure(
      'namespaceTerminating',
      { namespace: name },
      { object: { kind: 'namespaces', name } },
    )
  }
  return { key, modRevision: entry.modRevision }
}
