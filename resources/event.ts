import Type, { type Static } from 'typebox'
import { formatAge } from './duration.ts'
import type { Kind } from './kind.ts'
import { metadataSchema } from './metadata.ts'

const strict = { additionalProperties: false }

/** The schema of an Event, as Kubernetes' core group has it (core/v1 Event, the part that is used). */
export const eventSchema = Type.Object(
  {
    apiVersion: Type.Literal('v1'),
    kind: Type.Literal('Event'),
    metadata: metadataSchema,
    involvedObject: Type.Object(
      {
        apiVersion: Type.Optional(Type.String({ maxLength: 253 })),
        kind: Type.Optional(Type.String({ maxLength: 63 })),
        namespace: Type.Optional(Type.String({ maxLength: 63 })),
        name: Type.Optional(Type.String({ maxLength: 253 })),
        uid: Type.Optional(Type.String({ maxLength: 64 })),
        resourceVersion: Type.Optional(Type.String({ maxLength: 32 })),
        fieldPath: Type.Optional(Type.String({ maxLength: 253 })),
      },
      { ...strict, description: 'The object that it happened to.' },
    ),
    reason: Type.Optional(Type.String({ maxLength: 128 })),
    message: Type.Optional(Type.String({ maxLength: 4096 })),
    type: Type.Optional(Type.Enum(['Normal', 'Warning'])),
    count: Type.Optional(Type.Integer({ description: 'How often it happened.' })),
    firstTimestamp: Type.Optional(Type.String({ maxLength: 40 })),
    lastTimestamp: Type.Optional(Type.String({ maxLength: 40 })),
    source: Type.Optional(
      Type.Object(
        {
          component: Type.Optional(Type.String({ maxLength: 253 })),
          host: Type.Optional(Type.String({ maxLength: 253 })),
        },
        strict,
      ),
    ),
  },
  { ...strict, description: 'Something that happened to an object.' },
)

/** Something that happened to an object. */
export type Event = Static<typeof eventSchema>

/** What is known of the kind Event. */
export const eventKind: Kind<Event> = {
  kind: 'Event',
  group: '',
  version: 'v1',
  plural: 'events',
  singular: 'event',
  shortNames: ['ev'],
  namespaced: true,
  description: 'Something that happened to an object.',
  schema: eventSchema,
  hasStatus: false,
  columns: [
    {
      name: 'Last Seen',
      description: 'Time since it last happened.',
      type: 'string',
      priority: 0,
      cell: (event, nowMs) => formatAge(nowMs - Date.parse(event.lastTimestamp ?? '')),
    },
    {
      name: 'Type',
      description: 'Normal or Warning.',
      type: 'string',
      priority: 0,
      cell: event => event.type ?? '',
    },
    {
      name: 'Reason',
      description: 'What happened, in a word.',
      type: 'string',
      priority: 0,
      cell: event => event.reason ?? '',
    },
    {
      name: 'Object',
      description: 'What it happened to.',
      type: 'string',
      priority: 0,
      cell: event =>
        `${(event.involvedObject.kind ?? '').toLowerCase()}/${event.involvedObject.name ?? ''}`,
    },
    {
      name: 'Count',
      description: 'How often it happened.',
      type: 'integer',
      priority: 1,
      cell: event => event.count ?? 1,
    },
    {
      name: 'Message',
      description: 'What happened, in a sentence.',
      type: 'string',
      priority: 0,
      cell: event => event.message ?? '',
    },
  ],
}
