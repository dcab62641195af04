import type { Kind, Resource } from '../resources/kind.ts'
import { createObject } from './object-create.ts'
import { listObjects } from './object-list.ts'
import { keyOf, type ObjectReference, objectNotFound, objectOf } from './object-record.ts'
import { removeObject } from './object-remove.ts'
import type { Objects, ObjectsComponents, ObjectsContext, ObjectsInit } from './object-types.ts'
import { releaseFinalizer, updateObject, updateStatus } from './object-update.ts'
import { watchObjects } from './object-watch.ts'

export type * from './object-types.ts'

/** Makes typed objects over a store. */
export function createObjects(init: ObjectsInit, components: ObjectsComponents): Objects {
  const context: ObjectsContext = { ...components, guards: init.guards ?? [] }
  const { freshStore = components.store } = init
  const writing: ObjectsContext = { ...context, store: freshStore }
  const find = async <T extends Resource>(kind: Kind<T>, reference: ObjectReference) => {
    const key = keyOf(kind, reference)
    if (key === undefined) return undefined
    const { entry } = await context.store.get(key)
    return entry === undefined ? undefined : objectOf<T>(entry)
  }
  return {
    find,
    async get(kind, reference) {
      const object = await find(kind, reference)
      if (object === undefined) throw objectNotFound(kind, reference.name)
      return object
    },
    list: (kind, selection = {}) => listObjects(context, kind, selection),
    create: (kind, object, options = {}) => createObject(writing, kind, object, options),
    async replace(kind, object, options = {}) {
      const replaced = await updateObject(writing, kind, object.metadata, () => object, options)
      if (replaced === undefined) throw objectNotFound(kind, object.metadata.name)
      return replaced
    },
    change: (kind, reference, mutate, options = {}) =>
      updateObject(writing, kind, reference, mutate, options),
    changeStatus: (kind, reference, mutate, options = {}) =>
      updateStatus(writing, kind, reference, mutate, options),
    remove: (kind, reference, options = {}) => removeObject(writing, kind, reference, options),
    releaseFinalizer: (kind, reference, finalizer, uid) =>
      releaseFinalizer(writing, kind, reference, { finalizer, uid }),
    watch: (kind, selection) => watchObjects(context, kind, selection),
  }
}
