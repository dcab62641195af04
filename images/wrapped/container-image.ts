import Type, { type Static, type TSchema } from 'typebox'
import { Value } from 'typebox/value'
import { failure, type MacfleetError } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { ImageConfig } from '../image-record.ts'

/** A layer of an ordinary container image: an archive of files, packed or not. */
export interface ContainerLayer {
  /** Of the blob, as it is kept. */
  digest: string
  sizeBytes: number
  /** Of the archive, unpacked. */
  plainDigest: string
}

/** An ordinary container image (docker's schema 2, or OCI's). */
export interface ContainerImage {
  /** Undefined when it says none that we know. */
  arch: ImageConfig['arch'] | undefined
  /** Base first. */
  layers: ContainerLayer[]
}

/** How much a container image may ask of whoever reads it. */
export type ContainerBounds = Pick<Limits, 'registryContainerLayers' | 'diskBytes'>

const digest = Type.String({ pattern: '^sha256:[0-9a-f]{64}$' })
const manifestSchema = Type.Object({
  schemaVersion: Type.Literal(2),
  config: Type.Object({ digest }),
  layers: Type.Array(
    Type.Object({
      mediaType: Type.String({ maxLength: 255 }),
      digest,
      size: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
    }),
  ),
})
const configSchema = Type.Object({
  architecture: Type.Optional(Type.String()),
  rootfs: Type.Object({ type: Type.Literal('layers'), diff_ids: Type.Array(digest) }),
})

/** How a layer is packed shows in its first bytes, and its plain digest says whether that's right. */
const layerTypes = [
  'application/vnd.docker.image.rootfs.diff.tar',
  'application/vnd.docker.image.rootfs.diff.tar.gzip',
  'application/vnd.docker.image.rootfs.diff.tar.zstd',
  'application/vnd.oci.image.layer.v1.tar',
  'application/vnd.oci.image.layer.v1.tar+gzip',
  'application/vnd.oci.image.layer.v1.tar+zstd',
]

const architectures = new Map<string, ImageConfig['arch']>([
  ['amd64', 'x86_64'],
  ['arm64', 'aarch64'],
])

/**
 * Reads the manifest of a container image and its config, each already compared with its digest
 * and bounded in size.
 * @param source who they are from, for errors
 * @throws wrappedDiskRefused
 */
export function readContainerImage(
  parts: { manifest: Uint8Array; config: Uint8Array },
  source: string,
  bounds: ContainerBounds,
): ContainerImage {
  const refused = (detail: string) => failure('wrappedDiskRefused', { source, detail })
  const manifest = read(manifestSchema, parts.manifest, 'manifest', refused)
  const config = read(configSchema, parts.config, 'config', refused)
  const { layers } = manifest
  const { diff_ids: plainDigests } = config.rootfs
  const most = bounds.registryContainerLayers
  if (layers.length > most) throw refused(`it has ${layers.length} layers, more than ${most}`)
  if (layers.length !== plainDigests.length) {
    throw refused(`it has ${layers.length} layers, and its config ${plainDigests.length}`)
  }
  let sumBytes = 0
  for (const { mediaType, size } of layers) {
    if (!layerTypes.includes(mediaType)) throw refused(`it has a layer of type ${mediaType}`)
    sumBytes += size
  }
  if (sumBytes > bounds.diskBytes) throw refused(`its ${sumBytes} bytes are too many`)
  return {
    arch: architectures.get(config.architecture ?? ''),
    layers: layers.map((layer, at) => ({
      digest: layer.digest,
      sizeBytes: layer.size,
      plainDigest: plainDigests[at] ?? '',
    })),
  }
}

function read<Schema extends TSchema>(
  schema: Schema,
  bytes: Uint8Array,
  name: string,
  refused: (detail: string) => MacfleetError,
): Static<Schema> {
  let parsed: unknown
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    throw refused(`its ${name} is not JSON`)
  }
  if (Value.Check(schema, parsed)) return parsed as Static<Schema>
  const [error] = Value.Errors(schema, parsed)
  throw refused(`its ${name} is wrong: ${error?.instancePath} ${error?.message}`)
}
