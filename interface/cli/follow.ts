import type { Resource } from '../../resources/kind.ts'
import type { Table } from '../../resources/table.ts'
import type { KindName } from './kinds.ts'
import {
  asResource,
  isTable,
  listObjects,
  listTable,
  type Selection,
  tableAccept,
} from './resource-client.ts'
import { isExpired, type WatchComponents, watchChanges } from './watch.ts'

/** Which objects are followed. */
export interface FollowInit {
  kind: KindName
  selection: Selection
}

/**
 * The objects there are, then each one that changes; a deleted one is told in its last state. When
 * the server has forgotten where we were, those that changed since are told from a new list.
 */
export async function* followObjects(
  init: FollowInit,
  components: WatchComponents,
): AsyncGenerator<Resource> {
  const seen = new Map<string, string>()
  while (true) {
    const { items, resourceVersion } = await listObjects(
      components.client,
      init.kind,
      init.selection,
    )
    for (const item of items) if (isNews(seen, item)) yield item
    try {
      for await (const event of watchChanges({ ...init, resourceVersion }, components)) {
        const object = asResource(event.object, 'a watch')
        if (isNews(seen, object) || event.type === 'DELETED') yield object
        if (event.type === 'DELETED') seen.delete(keyOf(object))
      }
    } catch (thrown) {
      if (!isExpired(thrown)) throw thrown
    }
  }
}

/** The table of the objects there are, then tables of those that changed. */
export async function* followTable(
  init: FollowInit,
  components: WatchComponents,
): AsyncGenerator<Table> {
  const seen = new Map<string, string>()
  while (true) {
    const table = await listTable(components.client, init.kind, init.selection)
    const resourceVersion = table.metadata.resourceVersion ?? ''
    yield { ...table, rows: table.rows.filter(row => isNews(seen, row.object)) }
    const watchInit = { ...init, resourceVersion, accept: tableAccept }
    try {
      for await (const event of watchChanges(watchInit, components)) {
        if (!isTable(event.object)) continue
        // Later events may leave the headings out.
        const columnDefinitions = event.object.columnDefinitions ?? []
        for (const row of event.object.rows) {
          if (!isNews(seen, row.object) && event.type !== 'DELETED') continue
          const columns = columnDefinitions.length > 0 ? columnDefinitions : table.columnDefinitions
          yield { ...table, columnDefinitions: columns, rows: [row] }
          if (event.type === 'DELETED') seen.delete(keyOf(row.object))
        }
      }
    } catch (thrown) {
      if (!isExpired(thrown)) throw thrown
    }
  }
}

function keyOf(object: Resource): string {
  return `${object.metadata.namespace ?? ''}/${object.metadata.name}`
}

/** Whether this revision of the object was not told yet; from now on it was. */
function isNews(seen: Map<string, string>, object: Resource): boolean {
  const key = keyOf(object)
  const version = object.metadata.resourceVersion ?? ''
  if (version !== '' && seen.get(key) === version) return false
  seen.set(key, version)
  return true
}
