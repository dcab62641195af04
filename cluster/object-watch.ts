import { failure } from '../base/errors.ts'
import type { Kind, Resource } from '../resources/kind.ts'
import { prefixOf } from './object-list.ts'
import { objectOf } from './object-record.ts'
import type { ObjectChange, ObjectsContext, WatchSelection } from './object-types.ts'
import type { WatchEvent } from './store/store.ts'

/**
 * The revision behind a resourceVersion that a client sent.
 * @throws badRequest when it is none
 */
export function parseResourceVersion(resourceVersion: string): number {
  const revision = /^\d{1,16}$/.test(resourceVersion) ? Number(resourceVersion) : Number.NaN
  if (Number.isSafeInteger(revision)) return revision
  throw failure('badRequest', {
    detail: `resourceVersion must be one that the server gave, not ${resourceVersion.slice(0, 40)}`,
  })
}

/** See Objects.watch. */
export async function* watchObjects<T extends Resource>(
  context: ObjectsContext,
  kind: Kind<T>,
  selection: WatchSelection,
): AsyncGenerator<ObjectChange<T>> {
  const afterRevision = parseResourceVersion(selection.afterResourceVersion)
  const prefix = prefixOf(kind, selection.namespace)
  const { signal } = selection
  for await (const batch of context.store.watch(prefix, { afterRevision, signal })) {
    for (const event of batch.events) yield changeOf<T>(event)
    yield { type: 'BOOKMARK', resourceVersion: String(batch.revision) }
  }
}

function changeOf<T extends Resource>(event: WatchEvent): ObjectChange<T> {
  const { entry, previous } = event
  if (entry !== undefined) {
    const object = objectOf<T>(entry)
    if (previous === undefined) return { type: 'ADDED', object }
    return { type: 'MODIFIED', object, previous: objectOf<T>(previous) }
  }
  if (previous === undefined) throw new Error('a deletion of what was not there')
  return { type: 'DELETED', object: objectOf<T>(previous, event.revision) }
}
