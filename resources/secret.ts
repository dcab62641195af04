import Type, { type Static } from 'typebox'
import { formatAge } from './duration.ts'
import { type Kind, nameColumn } from './kind.ts'
import { metadataSchema } from './metadata.ts'

const strict = { additionalProperties: false }
const base64 = '^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$'

/** The schema of a Secret, as Kubernetes' core group has it; values are given in `data` only. */
export const secretSchema = Type.Object(
  {
    apiVersion: Type.Literal('v1'),
    kind: Type.Literal('Secret'),
    metadata: metadataSchema,
    type: Type.String({ default: 'Opaque', maxLength: 253, description: 'What it is for.' }),
    immutable: Type.Optional(Type.Boolean()),
    data: Type.Optional(
      Type.Record(
        Type.String(),
        Type.String({ pattern: base64, maxLength: 1_048_576, description: 'In base64.' }),
        { propertyNames: { pattern: '^[-._a-zA-Z0-9]{1,253}$' } },
      ),
    ),
  },
  { ...strict, description: 'Credentials that other objects name.' },
)

/** Credentials that other objects name. */
export type Secret = Static<typeof secretSchema>

/** The type of a Secret with a docker config file, and the key that it lies under. */
export const dockerConfig = { type: 'kubernetes.io/dockerconfigjson', key: '.dockerconfigjson' }

/** What is known of the kind Secret. */
export const secretKind: Kind<Secret> = {
  kind: 'Secret',
  group: '',
  version: 'v1',
  plural: 'secrets',
  singular: 'secret',
  shortNames: [],
  namespaced: true,
  description: 'Credentials that other objects name.',
  schema: secretSchema,
  hasStatus: false,
  immutable: ['type'],
  columns: [
    nameColumn,
    {
      name: 'Type',
      description: 'What it is for.',
      type: 'string',
      priority: 0,
      cell: secret => secret.type,
    },
    {
      name: 'Data',
      description: 'How many values it has.',
      type: 'integer',
      priority: 0,
      cell: secret => Object.keys(secret.data ?? {}).length,
    },
    {
      name: 'Age',
      description: 'Time since creation.',
      type: 'string',
      priority: 0,
      cell: (secret, nowMs) =>
        formatAge(nowMs - Date.parse(secret.metadata.creationTimestamp ?? '')),
    },
  ],
}
