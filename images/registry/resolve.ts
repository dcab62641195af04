import Type, { type Static } from 'typebox'
import { Value } from 'typebox/value'
import { failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { decodeConfig } from '../decode-config.ts'
import {
  checkManifest,
  type Descriptor,
  decodeManifest,
  type ImageManifest,
  isImageManifest,
} from '../format/manifest.ts'
import type { ImageConfig } from '../image-record.ts'
import { type ContainerImage, readContainerImage } from '../wrapped/container-image.ts'
import type { FetchedManifest, RegistryClient } from './client.ts'
import { formatReference, type ImageReference, isDigest } from './reference.ts'

/** What a reference stands for. */
export type ResolvedImage = ResolvedOwnImage | ResolvedContainerImage

/** An image of ours, with all of it but its bytes. */
export interface ResolvedOwnImage {
  kind: 'image'
  /** The reference by the digest of its manifest: it stands for the same for good. */
  reference: string
  manifest: ImageManifest
  /** Of its config: it names the image. */
  digest: string
  config: ImageConfig
  /** Encoded indexes, base first; compared with their digests, and not looked into. */
  layers: Buffer[]
  /** Where the chunks of each layer lie, encoded; compared with their digests alone. */
  locations: Buffer[]
}

/** A container image, which may have a disk in it (wrapped/). */
export interface ResolvedContainerImage {
  kind: 'container'
  reference: string
  image: ContainerImage
}

/** What a resolution needs; a folder of images can be asked as a registry is (library/). */
export interface ResolveComponents {
  client: ResolveClient
  limits: Limits
}

/** What a resolution asks a registry for. */
export type ResolveClient = Pick<RegistryClient, 'name' | 'fetchManifest' | 'readBlob'>

const indexTypes = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
]
const indexSchema = Type.Object({
  manifests: Type.Array(
    Type.Object({
      mediaType: Type.Optional(Type.String({ maxLength: 255 })),
      digest: Type.String({ maxLength: 255 }),
      platform: Type.Optional(Type.Object({ architecture: Type.Optional(Type.String()) })),
    }),
  ),
})
type Index = Static<typeof indexSchema>

const containerConfigBytes = 8 * 1024 * 1024
const architectures: Record<string, ImageConfig['arch']> = { amd64: 'x86_64', arm64: 'aarch64' }

/**
 * Looks a reference up: the manifest, of an index the one for `arch`, the config and the layers'
 * indexes; everything is compared with its digest and bounded before it is read.
 * @throws registryArchMissing, registryImageRefused, imageManifestInvalid, imageConfigInvalid,
 * wrappedDiskRefused, and what the client throws
 */
export async function resolveImage(
  reference: ImageReference,
  wanted: { arch: ImageConfig['arch'] },
  components: ResolveComponents,
  signal: AbortSignal,
): Promise<ResolvedImage> {
  const { client, limits } = components
  const { repository, tag = 'latest', digest = tag } = reference
  const shown = formatReference(reference)
  let manifest = await client.fetchManifest(repository, digest, signal)
  let parsed = parse(manifest, shown)
  if (isIndex(manifest, parsed)) {
    const chosen = chooseEntry(parsed, wanted.arch, shown)
    manifest = await client.fetchManifest(repository, chosen, signal)
    parsed = parse(manifest, shown)
    if (isIndex(manifest, parsed)) throw refused(shown, 'its index names another index')
  }
  const resolved = formatReference({ host: reference.host, repository, digest: manifest.digest })
  if (!isImageManifest(parsed)) {
    const config = await readConfig(parsed, repository, shown, client, signal)
    const image = readContainerImage({ manifest: manifest.bytes, config }, shown, limits)
    checkArch(image.arch ?? wanted.arch, wanted.arch, shown)
    return { kind: 'container', reference: resolved, image }
  }
  const own = decodeManifest(manifest.bytes, limits)
  const read = (blob: Descriptor) => readExactly(blob, repository, client, signal)
  const config = decodeConfig(await read(own.config))
  checkManifest(own, config)
  checkArch(config.arch, wanted.arch, shown)
  const parts = own.layers.flatMap(({ index, locations: places }) => [index, places])
  const bytes = await readAll(parts, limits.registryConnections, read)
  const layers = bytes.filter((_, at) => at % 2 === 0)
  const locations = bytes.filter((_, at) => at % 2 === 1)
  const found = { manifest: own, digest: own.config.digest, config, layers, locations }
  return { kind: 'image', reference: resolved, ...found }
}

function parse({ bytes, mediaType }: FetchedManifest, shown: string): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    throw refused(shown, `its manifest (${mediaType || 'of no type'}) is not JSON`)
  }
}

/** What is in the manifest counts, and what the registry calls it only where that says nothing. */
function isIndex(manifest: FetchedManifest, parsed: unknown): boolean {
  const said = typeof parsed === 'object' && parsed !== null && 'mediaType' in parsed
  return indexTypes.includes(said ? String(parsed.mediaType) : manifest.mediaType)
}

function chooseEntry(parsed: unknown, arch: ImageConfig['arch'], shown: string): string {
  if (!Value.Check(indexSchema, parsed)) throw refused(shown, 'its index is not made as it should')
  const archOf = ({ platform }: Index['manifests'][number]): string =>
    architectures[platform?.architecture ?? ''] ?? ''
  const chosen = parsed.manifests.find(entry => archOf(entry) === arch)
  if (chosen === undefined) throw archMissing(shown, arch, parsed.manifests.map(archOf))
  if (!isDigest(chosen.digest)) throw refused(shown, 'its index names a manifest by no digest')
  return chosen.digest
}

function checkArch(found: ImageConfig['arch'], wanted: ImageConfig['arch'], shown: string): void {
  if (found !== wanted) throw archMissing(shown, wanted, [found])
}

function archMissing(shown: string, wanted: string, found: readonly string[]): Error {
  const there = [...new Set(found.filter(Boolean))].join(' and ') || 'others'
  return failure('registryArchMissing', { reference: shown, wanted, found: there })
}

/** What `read` makes of all, in order, so many at a time. */
async function readAll<Item>(
  items: readonly Item[],
  atOnce: number,
  read: (item: Item) => Promise<Buffer>,
): Promise<Buffer[]> {
  const done: Buffer[] = []
  for (let at = 0; at < items.length; at += atOnce) {
    done.push(...(await Promise.all(items.slice(at, at + atOnce).map(read))))
  }
  return done
}

/** A blob of the length that a manifest says; the client compares its digest. */
async function readExactly(
  { digest, sizeBytes }: Descriptor,
  repository: string,
  client: ResolveClient,
  signal: AbortSignal,
): Promise<Buffer> {
  const bytes = await client.readBlob(repository, digest, sizeBytes, signal)
  if (bytes.length === sizeBytes) return bytes
  const detail = `blob ${digest} has ${bytes.length} bytes where its manifest says ${sizeBytes}`
  throw failure('sourceFailed', { source: client.name, detail })
}

async function readConfig(
  manifest: unknown,
  repository: string,
  shown: string,
  client: ResolveClient,
  signal: AbortSignal,
): Promise<Buffer> {
  const schema = Type.Object({ config: Type.Object({ digest: Type.String() }) })
  const digest = Value.Check(schema, manifest) ? manifest.config.digest : undefined
  if (!isDigest(digest)) throw refused(shown, 'its manifest is of no kind that is known here')
  return client.readBlob(repository, digest, containerConfigBytes, signal)
}

function refused(reference: string, detail: string): Error {
  return failure('registryImageRefused', { reference, detail })
}
