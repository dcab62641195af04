import Type, { type Static } from 'typebox'
import { formatAge } from './duration.ts'
import { type Kind, nameColumn } from './kind.ts'
import { metadataSchema } from './metadata.ts'

const strict = { additionalProperties: false }

/** The schema of a Namespace, as Kubernetes' core group has it. */
export const namespaceSchema = Type.Object(
  {
    apiVersion: Type.Literal('v1'),
    kind: Type.Literal('Namespace'),
    metadata: metadataSchema,
    spec: Type.Optional(
      Type.Object({ finalizers: Type.Optional(Type.Array(Type.String())) }, strict),
    ),
    status: Type.Optional(Type.Object({ phase: Type.Enum(['Active', 'Terminating']) }, strict)),
  },
  { ...strict, description: 'Owns the objects of one team.' },
)

/** Owns the objects of one team. */
export type Namespace = Static<typeof namespaceSchema>

/** The namespace that is meant when none is named. */
export const defaultNamespace = 'default'

/** What is known of the kind Namespace. */
export const namespaceKind: Kind<Namespace> = {
  kind: 'Namespace',
  group: '',
  version: 'v1',
  plural: 'namespaces',
  singular: 'namespace',
  shortNames: ['ns'],
  namespaced: false,
  description: 'Owns the objects of one team.',
  schema: namespaceSchema,
  hasStatus: true,
  finalizer: 'macfleet.dev/contents',
  columns: [
    nameColumn,
    {
      name: 'Status',
      description: 'Whether it takes new objects.',
      type: 'string',
      priority: 0,
      cell: namespace => namespace.status?.phase ?? 'Active',
    },
    {
      name: 'Age',
      description: 'Time since creation.',
      type: 'string',
      priority: 0,
      cell: (namespace, nowMs) =>
        formatAge(nowMs - Date.parse(namespace.metadata.creationTimestamp ?? '')),
    },
  ],
}
