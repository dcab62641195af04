import Type, { type Static } from 'typebox'

/** A name: a DNS label (RFC 1123), because it becomes a host name. */
export const nameSchema = Type.String({
  pattern: '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$',
  maxLength: 63,
  description: 'A DNS label: lower-case letters, digits and hyphens, at most 63.',
})

/** Whether an object can have this name at all. */
export function isName(text: string): boolean {
  return text.length <= 63 && /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(text)
}

const labelKey =
  '^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'

/** Labels: short keys and values to select by. */
export const labelsSchema = Type.Record(
  Type.String(),
  Type.String({ pattern: '^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$', maxLength: 63 }),
  { propertyNames: { pattern: labelKey } },
)

const annotationsSchema = Type.Record(Type.String(), Type.String({ maxLength: 262_144 }), {
  propertyNames: { pattern: labelKey },
})

/** What every object carries (Kubernetes ObjectMeta, the part that we use). */
export const metadataSchema = Type.Object(
  {
    name: nameSchema,
    namespace: Type.Optional(nameSchema),
    generateName: Type.Optional(
      Type.String({
        pattern: '^[a-z0-9]([-a-z0-9]*)?$',
        maxLength: 57,
        description: 'Start of a name that the server completes; in place of name.',
      }),
    ),
    labels: Type.Optional(labelsSchema),
    annotations: Type.Optional(annotationsSchema),
    uid: Type.Optional(Type.String({ maxLength: 64, description: 'Given by the server.' })),
    resourceVersion: Type.Optional(
      Type.String({
        maxLength: 32,
        description: "The store's revision of this object's last write.",
      }),
    ),
    generation: Type.Optional(
      Type.Integer({ description: 'Counts changes of spec. Given by the server.' }),
    ),
    creationTimestamp: Type.Optional(Type.String({ maxLength: 40 })),
    deletionTimestamp: Type.Optional(
      Type.String({
        maxLength: 40,
        description: 'Set when deletion was asked for and is under way.',
      }),
    ),
    deletionGracePeriodSeconds: Type.Optional(Type.Integer({ minimum: 0, maximum: 86_400 })),
    finalizers: Type.Optional(Type.Array(Type.String({ maxLength: 253 }), { maxItems: 32 })),
    ownerReferences: Type.Optional(
      Type.Array(
        Type.Object(
          {
            apiVersion: Type.String({ maxLength: 253 }),
            kind: Type.String({ maxLength: 63 }),
            name: Type.String({ maxLength: 253 }),
            uid: Type.String({ maxLength: 64 }),
            controller: Type.Optional(Type.Boolean()),
            blockOwnerDeletion: Type.Optional(Type.Boolean()),
          },
          { additionalProperties: false },
        ),
        { maxItems: 16 },
      ),
    ),
    managedFields: Type.Optional(Type.Array(Type.Unknown(), { maxItems: 256 })),
    selfLink: Type.Optional(Type.String({ maxLength: 512 })),
  },
  { additionalProperties: false, description: 'Who this object is.' },
)

/** Metadata as stored: what the server gives is there. */
export type Metadata = Static<typeof metadataSchema>
