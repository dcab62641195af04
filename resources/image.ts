import Type, { type Static } from 'typebox'
import { conditionSchema, findCondition } from './condition.ts'
import { formatAge } from './duration.ts'
import { checkImageSource, imageCopiesSchema, imageSourceSchema } from './image-source.ts'
import { type Kind, nameColumn } from './kind.ts'
import { metadataSchema } from './metadata.ts'
import { approximateBytes } from './quantity.ts'

const strict = { additionalProperties: false }

/** The schema of an Image. */
export const imageSchema = Type.Object(
  {
    apiVersion: Type.Literal('macfleet.dev/v1'),
    kind: Type.Literal('Image'),
    metadata: metadataSchema,
    spec: Type.Object(
      {
        description: Type.Optional(Type.String({ maxLength: 1024 })),
        arch: Type.Enum(['x86_64', 'aarch64'], {
          default: 'x86_64',
          description: 'Processor it is made for.',
        }),
        machine: Type.Enum(['linux', 'macos'], {
          default: 'linux',
          description: 'Shape of the machine it is made for.',
        }),
        firmware: Type.Enum(['bios', 'uefi'], {
          default: 'bios',
          description: 'Firmware it boots with.',
        }),
        kernelCommandLine: Type.Optional(
          Type.String({ maxLength: 2048, description: 'For images that carry their own kernel.' }),
        ),
        pinned: Type.Boolean({ default: false, description: 'Never removed to make room.' }),
        source: Type.Optional(imageSourceSchema),
        copies: Type.Optional(imageCopiesSchema),
      },
      { ...strict, description: "What the image is for. The user's." },
    ),
    status: Type.Optional(
      Type.Object(
        {
          phase: Type.Enum(['Importing', 'Ready', 'Failed']),
          digest: Type.Optional(Type.String({ description: 'Names the content, for good.' })),
          virtualSizeBytes: Type.Optional(Type.Integer({ description: 'Size of the disk.' })),
          sizeBytes: Type.Optional(Type.Integer({ description: 'Bytes it takes on a host.' })),
          chunks: Type.Optional(Type.Integer()),
          format: Type.Optional(Type.String({ description: 'Format it was imported from.' })),
          hasKernel: Type.Optional(
            Type.Boolean({ description: 'Whether it boots its own kernel.' }),
          ),
          importer: Type.Optional(
            Type.String({ description: 'The host that takes its content in just now.' }),
          ),
          holders: Type.Optional(
            Type.Array(
              Type.Object({ host: Type.String(), users: Type.Array(Type.String()) }, strict),
              { description: 'Hosts that hold it, each with the machines that use it there.' },
            ),
          ),
          hosts: Type.Optional(Type.Array(Type.String(), { description: 'Hosts that hold it.' })),
          filling: Type.Optional(
            Type.Array(
              Type.Object(
                {
                  host: Type.String(),
                  doneBytes: Type.Integer(),
                  totalBytes: Type.Integer(),
                  stalled: Type.Optional(Type.String()),
                },
                strict,
              ),
              { description: 'Hosts to which it is on its way.' },
            ),
          ),
          copyHosts: Type.Optional(
            Type.Array(Type.String(), { description: 'Hosts that are to hold it (spec.copies).' }),
          ),
          resolved: Type.Optional(
            Type.String({ description: 'What the source was when it was looked up, by digest.' }),
          ),
          users: Type.Optional(
            Type.Array(Type.String(), { description: 'Machines whose disks lie upon it.' }),
          ),
          importedAt: Type.Optional(Type.String()),
          lastUsedAt: Type.Optional(Type.String()),
          progress: Type.Optional(
            Type.Object(
              {
                stage: Type.String(),
                doneBytes: Type.Integer(),
                totalBytes: Type.Optional(Type.Integer()),
              },
              strict,
            ),
          ),
          conditions: Type.Optional(Type.Array(conditionSchema)),
        },
        { ...strict, description: 'What the image is. Ours.' },
      ),
    ),
  },
  { ...strict, description: 'A disk that machines start from.' },
)

/** A disk that machines start from. */
export type Image = Static<typeof imageSchema>

function hostsCell({ status }: Image): string {
  const held = status?.hosts?.length ?? 0
  const filling = status?.filling ?? []
  if (filling.length === 0) return `${held}`
  const share = ({ doneBytes, totalBytes }: (typeof filling)[number]) =>
    totalBytes > 0 ? doneBytes / totalBytes : 0
  const most = Math.max(...filling.map(share))
  return `${held}+${filling.length} (${Math.floor(most * 100)}%)`
}

function checkImage({ spec }: Image): { field: string; message: string }[] {
  return spec.source === undefined ? [] : checkImageSource(spec.source)
}

/** What is known of the kind Image. */
export const imageKind: Kind<Image> = {
  kind: 'Image',
  group: 'macfleet.dev',
  version: 'v1',
  plural: 'images',
  singular: 'image',
  shortNames: ['img'],
  namespaced: true,
  description: 'A disk that machines start from.',
  schema: imageSchema,
  hasStatus: true,
  finalizer: 'macfleet.dev/content',
  immutable: ['spec.arch', 'spec.machine', 'spec.source'],
  check: checkImage,
  columns: [
    nameColumn,
    {
      name: 'Phase',
      description: 'Whether it can be used.',
      type: 'string',
      priority: 0,
      cell: image => image.status?.phase ?? 'Importing',
    },
    {
      name: 'Virtual Size',
      description: 'Size of the disk.',
      type: 'string',
      priority: 0,
      cell: image => approximateBytes(image.status?.virtualSizeBytes ?? 0),
    },
    {
      name: 'Size',
      description: 'Bytes it takes on a host.',
      type: 'string',
      priority: 0,
      cell: image => approximateBytes(image.status?.sizeBytes ?? 0),
    },
    {
      name: 'Users',
      description: 'Machines whose disks lie upon it.',
      type: 'integer',
      priority: 0,
      cell: image => image.status?.users?.length ?? 0,
    },
    {
      name: 'Hosts',
      description: 'Hosts that hold it; after the plus, those to which it is on its way.',
      type: 'string',
      priority: 0,
      cell: hostsCell,
    },
    {
      name: 'Age',
      description: 'Time since creation.',
      type: 'string',
      priority: 0,
      cell: (image, nowMs) => formatAge(nowMs - Date.parse(image.metadata.creationTimestamp ?? '')),
    },
    {
      name: 'Digest',
      description: 'Names the content.',
      type: 'string',
      priority: 1,
      cell: image => image.status?.digest?.slice(0, 19) ?? '',
    },
    {
      name: 'Firmware',
      description: 'Firmware it boots with.',
      type: 'string',
      priority: 1,
      cell: image => image.spec.firmware,
    },
    {
      name: 'Source',
      description: 'Where it comes from.',
      type: 'string',
      priority: 1,
      cell: ({ spec: { source } }) =>
        source?.registry ?? source?.url ?? (source?.library ? `library:${source.library}` : ''),
    },
    {
      name: 'Reason',
      description: 'Why it is not ready.',
      type: 'string',
      priority: 1,
      cell: image => findCondition(image.status?.conditions, 'Ready')?.message ?? '',
    },
  ],
}
