import Type, { type Static } from 'typebox'
import { Value } from 'typebox/value'
import { failure, isFailure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { digestBytes } from '../format/packs.ts'
import { isDigest } from '../registry/reference.ts'
import type { ResolveClient } from '../registry/resolve.ts'
import { type LibraryFile, readBlobWhole } from './read-file.ts'

const refName = 'org.opencontainers.image.ref.name'
const indexType = 'application/vnd.oci.image.index.v1+json'
const indexFile = 'index.json'
const markFile = 'oci-layout'

const indexSchema = Type.Object({
  manifests: Type.Array(
    Type.Object({
      mediaType: Type.String({ maxLength: 255 }),
      digest: Type.String({ pattern: '^sha256:[0-9a-f]{64}$' }),
      size: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
      annotations: Type.Optional(Type.Record(Type.String(), Type.String())),
      platform: Type.Optional(Type.Object({ architecture: Type.Optional(Type.String()) })),
    }),
  ),
})

/** An image of a layout, as its index.json names it. */
export type LayoutEntry = Static<typeof indexSchema>['manifests'][number]

/** How much a layout may ask of whoever reads it. */
export type LayoutBounds = Pick<Limits, 'registryManifestBytes' | 'libraryImages'>

/** Whether a folder is an OCI image layout. */
export async function isLayout({ reader, path }: LibraryFile, signal: AbortSignal) {
  try {
    await reader.look([...path, markFile], signal)
    return true
  } catch (error) {
    if (isFailure(error, 'notFound')) return false
    throw error
  }
}

/**
 * The images of a layout.
 * @throws sourceFailed when its index is none, and what the reader does
 */
export async function readLayout(
  { reader, name, path }: LibraryFile,
  bounds: LayoutBounds,
  signal: AbortSignal,
): Promise<LayoutEntry[]> {
  const at = [...path, indexFile]
  const bad = (detail: string) =>
    failure('sourceFailed', { source: name, detail: `${at.join('/')} ${detail}` })
  const limit = bounds.registryManifestBytes
  const bytes = await reader.read(at, 0, limit + 1, signal)
  if (bytes.length > limit) throw bad(`has more than ${limit} bytes`)
  let parsed: unknown
  try {
    parsed = JSON.parse(bytes.toString('utf8'))
  } catch {
    throw bad('is not JSON')
  }
  if (!Value.Check(indexSchema, parsed)) throw bad('is not the index of an OCI layout')
  if (parsed.manifests.length > bounds.libraryImages) throw bad('names too many images')
  return parsed.manifests
}

/** The tag of an image in its layout; skopeo writes the whole reference where it has one. */
export function tagOf({ annotations }: LayoutEntry): string | undefined {
  return annotations?.[refName]?.replace(/^.*:/, '')
}

/**
 * Answers for a layout what a registry would for a repository.
 * @param file its path is the layout's folder
 */
export function createLayoutClient(
  file: LibraryFile,
  bounds: LayoutBounds & Pick<Limits, 'imageManifestBytes'>,
): ResolveClient {
  const { name } = file
  const largest = Math.max(bounds.registryManifestBytes, bounds.imageManifestBytes)
  return {
    name,
    async fetchManifest(repository, reference, signal) {
      if (isDigest(reference)) {
        const bytes = await readBlobWhole(file, reference, largest, signal)
        return { digest: reference, mediaType: '', bytes }
      }
      const chosen = chooseTag(await readLayout(file, bounds, signal), reference, repository)
      const [only, ...others] = chosen
      if (only !== undefined && others.length === 0) {
        const bytes = await readBlobWhole(file, only.digest, largest, signal)
        return { digest: only.digest, mediaType: only.mediaType, bytes }
      }
      // One tag for several processors, each with an entry of its own.
      const bytes = Buffer.from(JSON.stringify({ mediaType: indexType, manifests: chosen }))
      return { digest: digestBytes(bytes), mediaType: indexType, bytes }
    },
    readBlob: (_, digest, limitBytes, signal) => readBlobWhole(file, digest, limitBytes, signal),
  }
}

/** Those of a tag; where it is `latest`, which nobody may have said, the only tag there is. */
function chooseTag(entries: LayoutEntry[], tag: string, shown: string): LayoutEntry[] {
  const tagged = entries.filter(entry => tagOf(entry) === tag)
  if (tagged.length > 0) return tagged
  const tags = [...new Set(entries.map(tagOf))]
  if (tag === 'latest' && tags.length === 1) return entries
  const there = tags.map(each => each ?? 'one without a tag').slice(0, 8)
  throw failure('registryImageRefused', {
    reference: `${shown}:${tag}`,
    detail: `the layout has no such tag, only ${there.join(', ') || 'nothing'}`,
  })
}
