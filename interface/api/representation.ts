import { failure } from '../../base/errors.ts'
import type { ObjectList } from '../../cluster/objects.ts'
import { apiVersionOf, type Kind, type Resource } from '../../resources/kind.ts'
import { type Table, type TableRow, tableColumns, tableRow } from '../../resources/table.ts'
import { parameter, type Query } from './context.ts'

/** What a row of a Table carries besides its cells (Kubernetes API, TableOptions). */
export type Include = 'None' | 'Metadata' | 'Object'

/**
 * The includeObject parameter.
 * @throws badRequest
 */
export function includeOf(query: Query): Include {
  const text = parameter(query, 'includeObject') ?? 'Metadata'
  if (text === 'None' || text === 'Metadata' || text === 'Object') return text
  throw failure('badRequest', { detail: 'includeObject must be None, Metadata or Object' })
}

/** A Table whose rows may be bare, and whose columns may have been told before. */
export type AnyTable = Omit<Table, 'rows' | 'columnDefinitions'> & {
  columnDefinitions: Table['columnDefinitions'] | null
  rows: (Omit<TableRow, 'object'> & { object?: Resource })[]
}

/** Objects as rows; `nowMs` is the wall time, for ages. */
export function tableOf(
  kind: Kind,
  items: readonly Resource[],
  metadata: Table['metadata'],
  options: { include: Include; nowMs: number },
): AnyTable {
  const { include, nowMs } = options
  const rows = items.map(item => {
    if (include !== 'None') return tableRow(kind, item, nowMs, include)
    return { cells: tableRow(kind, item, nowMs).cells }
  })
  const columnDefinitions = tableColumns(kind)
  return { kind: 'Table', apiVersion: 'meta.k8s.io/v1', metadata, columnDefinitions, rows }
}

/** A list of a kind, as Kubernetes shapes it. */
export function listOf(kind: Kind, list: ObjectList<Resource>) {
  return {
    kind: `${kind.kind}List`,
    apiVersion: apiVersionOf(kind),
    metadata: listMetadata(list),
    items: list.items,
  }
}

/** What a list says of itself. */
export function listMetadata(list: ObjectList<Resource>): Table['metadata'] {
  const { resourceVersion } = list
  return list.continue === undefined
    ? { resourceVersion }
    : { resourceVersion, continue: list.continue }
}
