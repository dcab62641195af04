import type { Kind, Resource } from './kind.ts'

/** meta.k8s.io/v1 Table: what `kubectl get` and `macfleet get` print (Kubernetes API concepts). */
export interface Table {
  kind: 'Table'
  apiVersion: 'meta.k8s.io/v1'
  metadata: { resourceVersion?: string; continue?: string; remainingItemCount?: number }
  columnDefinitions: TableColumn[]
  rows: TableRow[]
}

/** One column's heading. */
export interface TableColumn {
  name: string
  type: string
  format: string
  description: string
  priority: number
}

/** One object's cells, and who it is. */
export interface TableRow {
  cells: (string | number)[]
  object: Resource
}

/** What a row's object holds: who it is (the default), or all of it. */
export type IncludeObject = 'Metadata' | 'Object'

/** The headings of a kind's table. */
export function tableColumns(kind: Kind): TableColumn[] {
  return kind.columns.map(column => ({
    name: column.name,
    type: column.type,
    format: column === kind.columns[0] && column.name === 'Name' ? 'name' : '',
    description: column.description,
    priority: column.priority,
  }))
}

/** The row of one object; `nowMs` is the wall time, for ages. */
export function tableRow(
  kind: Kind,
  object: Resource,
  nowMs: number,
  include: IncludeObject = 'Metadata',
): TableRow {
  const cells = kind.columns.map(column => column.cell(object, nowMs))
  if (include === 'Object') return { cells, object }
  const partial = {
    kind: 'PartialObjectMetadata',
    apiVersion: 'meta.k8s.io/v1',
    metadata: object.metadata,
  }
  return { cells, object: partial }
}
