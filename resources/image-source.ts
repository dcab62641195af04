import Type, { type Static } from 'typebox'
import { labelsSchema, nameSchema } from './metadata.ts'

const strict = { additionalProperties: false }

/** The schema of an image's source. */
export const imageSourceSchema = Type.Object(
  {
    registry: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 512,
        description: 'Reference in a registry: `HOST[:PORT]/NAME[:TAG][@sha256:HEX]`.',
      }),
    ),
    library: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 512,
        description: "Name in the hosts' library, the folder that `imageLibrary` names.",
      }),
    ),
    url: Type.Optional(
      Type.String({
        pattern: '^https?://',
        maxLength: 2048,
        description: 'A raw or qcow2 file; plain http only together with its digest.',
      }),
    ),
    digest: Type.Optional(
      Type.String({ pattern: '^sha256:[0-9a-f]{64}$', description: 'Of the file at url.' }),
    ),
    pullSecret: Type.Optional({
      ...nameSchema,
      description: 'A Secret of the namespace, type kubernetes.io/dockerconfigjson.',
    }),
  },
  { ...strict, description: 'Where the content comes from; without it the content is uploaded.' },
)

/** Where an image's content comes from. */
export type ImageSource = Static<typeof imageSourceSchema>

/** The schema of where copies of an image are kept. */
export const imageCopiesSchema = Type.Object(
  {
    count: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 10_000,
        description: 'How many hosts hold it; all that match when left out.',
      }),
    ),
    hostSelector: Type.Optional({ ...labelsSchema, description: 'Labels of these hosts.' }),
  },
  { ...strict, description: 'Copies that are kept ahead of time, whoever needs them.' },
)

/** Where copies of an image are kept ahead of time. */
export type ImageCopies = Static<typeof imageCopiesSchema>

/** What the schema can't say of a source. */
export function checkImageSource(source: ImageSource): { field: string; message: string }[] {
  const { registry, library, url, digest, pullSecret } = source
  const named = [registry, library, url].filter(each => each !== undefined)
  const field = 'spec.source'
  if (named.length !== 1) return [{ field, message: 'needs one of registry, library and url' }]
  const wrong: { field: string; message: string }[] = []
  if (url === undefined && digest !== undefined) {
    const message = 'is for a url; a registry reference carries its digest itself (@sha256:...)'
    wrong.push({ field: `${field}.digest`, message })
  }
  if (url?.startsWith('http:') && digest === undefined) {
    const message = 'plain http needs spec.source.digest: nobody else says what came'
    wrong.push({ field: `${field}.url`, message })
  }
  const parsed = url !== undefined && URL.canParse(url) ? new URL(url) : undefined
  if (url !== undefined && parsed === undefined) {
    wrong.push({ field: `${field}.url`, message: 'is no URL' })
  }
  if (parsed !== undefined && parsed.username + parsed.password !== '') {
    const message = 'holds credentials, which all who see the image could read'
    wrong.push({ field: `${field}.url`, message })
  }
  // What comes before the first slash is a host and nothing else.
  if (registry?.split('/')[0]?.includes('@')) {
    const message = 'holds credentials, which all who see the image could read; name a pullSecret'
    wrong.push({ field: `${field}.registry`, message })
  }
  if (registry === undefined && pullSecret !== undefined) {
    wrong.push({ field: `${field}.pullSecret`, message: 'is for a registry' })
  }
  return wrong
}
