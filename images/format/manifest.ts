import Type, { type Static } from 'typebox'
import { Value } from 'typebox/value'
import { failure, type MacfleetError } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { ImageConfig } from '../image-record.ts'
import { layerAnnotation, mediaTypes } from './media-types.ts'

/** A blob as a manifest names it. */
export interface Descriptor {
  mediaType: string
  /** `sha256:` and the hash in hex. */
  digest: string
  sizeBytes: number
}

/** One layer: what it is (layer-index.ts), and where its chunks lie in packs (locations.ts). */
export interface ManifestLayer {
  index: Descriptor
  locations: Descriptor
}

/** What a registry keeps of an image: the blobs that it is made of. */
export interface ImageManifest {
  config: Descriptor
  /** Base first. */
  layers: ManifestLayer[]
  /** Every pack that a layer's chunks lie in, once, so that the registry keeps it. */
  packs: Descriptor[]
  kernel?: Descriptor
  initrd?: Descriptor
  nvram?: Descriptor
}

/** How much a manifest may ask of whoever reads it. */
export type ManifestBounds = Pick<
  Limits,
  | 'imageManifestBytes'
  | 'imageConfigBytes'
  | 'layerIndexBytes'
  | 'imageLayers'
  | 'imagePacks'
  | 'packBytes'
  | 'bootFileBytes'
>

// Only what matters is looked at: annotations and fields that are new to us are anybody's.
const descriptorSchema = Type.Object({
  mediaType: Type.String({ maxLength: 255 }),
  digest: Type.String({ pattern: '^sha256:[0-9a-f]{64}$' }),
  size: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
  annotations: Type.Optional(Type.Record(Type.String(), Type.String())),
})
const manifestSchema = Type.Object({
  schemaVersion: Type.Literal(2),
  mediaType: Type.Optional(Type.Literal(mediaTypes.manifest)),
  artifactType: Type.Literal(mediaTypes.artifact),
  config: descriptorSchema,
  layers: Type.Array(descriptorSchema),
})
type Written = Static<typeof descriptorSchema>

/** Whether a manifest, parsed as JSON, says that it is of an image of ours. */
export function isImageManifest(manifest: unknown): boolean {
  return (
    typeof manifest === 'object' &&
    manifest !== null &&
    'artifactType' in manifest &&
    manifest.artifactType === mediaTypes.artifact
  )
}

/**
 * Writes the OCI manifest of an image.
 * @param annotations of the manifest, for people; they change its digest, not the image's
 */
export function encodeManifest(
  manifest: ImageManifest,
  annotations: Readonly<Record<string, string>> = {},
): Buffer {
  const { config, layers, packs, kernel, initrd, nvram } = manifest
  const files = [kernel, initrd, nvram].filter(file => file !== undefined)
  const written = {
    schemaVersion: 2,
    mediaType: mediaTypes.manifest,
    artifactType: mediaTypes.artifact,
    config: writtenOf(config),
    layers: [
      ...layers.flatMap(({ index, locations }) => [
        writtenOf(index),
        { ...writtenOf(locations), annotations: { [layerAnnotation]: index.digest } },
      ]),
      ...packs.map(writtenOf),
      ...files.map(writtenOf),
    ],
    ...(Object.keys(annotations).length > 0 ? { annotations } : {}),
  }
  return Buffer.from(JSON.stringify(written))
}

function writtenOf({ mediaType, digest, sizeBytes }: Descriptor): Written {
  return { mediaType, digest, size: sizeBytes }
}

/**
 * Reads a manifest that anybody may have written. Blobs of a type that is not known are passed
 * over: they are for readers newer than this one.
 * @throws imageManifestInvalid
 */
export function decodeManifest(bytes: Uint8Array, bounds: ManifestBounds): ImageManifest {
  if (bytes.length > bounds.imageManifestBytes) throw invalid('it is too large')
  const written = parse(bytes)
  if (!isImageManifest(written)) throw invalid(`its artifactType is not ${mediaTypes.artifact}`)
  if (!Value.Check(manifestSchema, written)) {
    const [error] = Value.Errors(manifestSchema, written)
    throw invalid(`${error?.instancePath ?? ''} ${error?.message ?? 'is wrong'}`.trim())
  }
  if (written.config.mediaType !== mediaTypes.config) throw invalid('its config is of another type')
  const config = bounded(written.config, bounds.imageConfigBytes)
  const blobs = readBlobs(written.layers, bounds)
  checkSum(blobs.layers, bounds)
  return { config, ...blobs }
}

/** Indexes and locations of the largest size that one image may have. */
const indexesAtLimit = 4

/** Each is bounded already; many of that size would still be more than memory holds. */
function checkSum(layers: readonly ManifestLayer[], { layerIndexBytes }: ManifestBounds): void {
  const sizes = layers.flatMap(({ index, locations }) => [index.sizeBytes, locations.sizeBytes])
  const sumBytes = sizes.reduce((sum, sizeBytes) => sum + sizeBytes, 0)
  if (sumBytes <= layerIndexBytes * indexesAtLimit) return
  throw invalid(`its layers' indexes have ${sumBytes} bytes together`)
}

function parse(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    throw invalid('it is not JSON')
  }
}

function readBlobs(blobs: readonly Written[], bounds: ManifestBounds) {
  const layers: ManifestLayer[] = []
  const packs = new Map<string, Descriptor>()
  const files: Pick<ImageManifest, 'kernel' | 'initrd' | 'nvram'> = {}
  let index: Descriptor | undefined
  for (const blob of blobs) {
    const { mediaType, digest } = blob
    if (index !== undefined && mediaType !== mediaTypes.locations) break
    if (mediaType === mediaTypes.layer) {
      if (layers.length === bounds.imageLayers) throw invalid('it has too many layers')
      index = bounded(blob, bounds.layerIndexBytes)
    } else if (mediaType === mediaTypes.locations) {
      if (index === undefined || blob.annotations?.[layerAnnotation] !== index.digest) {
        throw invalid('the locations of a layer do not follow its index')
      }
      layers.push({ index, locations: bounded(blob, bounds.layerIndexBytes) })
      index = undefined
    } else if (mediaType === mediaTypes.pack) {
      if (packs.size === bounds.imagePacks) throw invalid('it has too many packs')
      if (packs.has(digest)) throw invalid('it names a pack twice')
      packs.set(digest, bounded(blob, bounds.packBytes))
    } else {
      const kind = (['kernel', 'initrd', 'nvram'] as const).find(of => mediaTypes[of] === mediaType)
      if (kind === undefined) continue
      if (files[kind] !== undefined) throw invalid(`it has two files of the kind ${kind}`)
      files[kind] = bounded(blob, bounds.bootFileBytes)
    }
  }
  if (index !== undefined) throw invalid('the locations of a layer do not follow its index')
  if (layers.length === 0) throw invalid('it has no layer')
  return { layers, packs: [...packs.values()], ...files }
}

function bounded({ mediaType, digest, size }: Written, limitBytes: number): Descriptor {
  if (size > limitBytes) throw invalid(`a blob of ${size} bytes is too large for ${mediaType}`)
  return { mediaType, digest, sizeBytes: size }
}

/**
 * Whether a manifest has the blobs that its config speaks of, in the same order.
 * @throws imageManifestInvalid
 */
export function checkManifest(manifest: ImageManifest, config: ImageConfig): void {
  const { layers } = manifest
  const isSame =
    layers.length === config.layers.length &&
    config.layers.every(({ digest }, at) => layers[at]?.index.digest === digest)
  if (!isSame) throw invalid('its layers are not those of its config')
  const isWithFiles =
    manifest.kernel?.digest === config.boot?.kernelDigest &&
    manifest.initrd?.digest === config.boot?.initrdDigest &&
    manifest.nvram?.digest === config.nvramDigest
  if (!isWithFiles) throw invalid('its kernel, initrd or NVRAM are not those of its config')
}

function invalid(detail: string): MacfleetError {
  return failure('imageManifestInvalid', { detail })
}
