import Type, { type Static } from 'typebox'

const strict = { additionalProperties: false }
const digest = Type.String({ pattern: '^sha256:[0-9a-f]{64}$' })
const bytes = Type.Integer({ minimum: 0 })

const layerSchema = Type.Object(
  { digest, dataBytes: bytes, chunkCount: bytes, extentCount: bytes },
  strict,
)

/** The schema of an image's config. */
export const imageConfigSchema = Type.Object(
  {
    version: Type.Literal(1),
    arch: Type.Enum(['x86_64', 'aarch64']),
    machine: Type.Enum(['linux', 'macos']),
    firmware: Type.Enum(['bios', 'uefi']),
    virtualSizeBytes: bytes,
    layers: Type.Array(layerSchema, { minItems: 1, maxItems: 128 }),
    boot: Type.Optional(
      Type.Object(
        {
          kernelDigest: digest,
          initrdDigest: Type.Optional(digest),
          commandLine: Type.Optional(Type.String({ maxLength: 2048 })),
        },
        strict,
      ),
    ),
    nvramDigest: Type.Optional(digest),
    defaults: Type.Optional(
      Type.Object(
        {
          cpu: Type.Optional(Type.Integer({ minimum: 1, maximum: 1024 })),
          memoryBytes: Type.Optional(Type.Integer({ minimum: 1 })),
        },
        strict,
      ),
    ),
  },
  strict,
)

/**
 * What an image is: its layers, base first, each by the digest of its index (layer-index.ts), and
 * how a machine starts from it. The digest of this, written canonically, names the image: it is the
 * same wherever the layers' bytes are kept, and however they are packed there. `defaults` are what
 * a machine gets that does not say; `nvramDigest` is of the firmware's variables to start with.
 */
export type ImageConfig = Static<typeof imageConfigSchema>

/** One layer as a config names it; the counts are of its own chunks alone. */
export type ConfigLayer = ImageConfig['layers'][number]

/** The schema of an image's state. */
export const imageStateSchema = Type.Object(
  {
    format: Type.Enum(['raw', 'qcow2']),
    importedAt: Type.String(),
    lastUsedAt: Type.String(),
    pinned: Type.Boolean(),
    users: Type.Array(Type.Object({ uid: Type.String(), name: Type.String() }, strict)),
    origin: Type.Optional(Type.String({ maxLength: 1024 })),
  },
  strict,
)

/** What this host knows of an image besides; `origin`: where it came from, for people. */
export type ImageState = Static<typeof imageStateSchema>

/** Who uses an image: an object that must not lose it. */
export type ImageUser = ImageState['users'][number]

/** An image on this host. */
export interface ImageRecord {
  /** `sha256:` and the hash of its config: the same content always has the same. */
  digest: string
  /** Digests of its layers' indexes, base first. */
  layerDigests: string[]
  /** Size of the disk that a guest sees: the file's, rounded up to 4096. */
  virtualSizeBytes: number
  /** Bytes that its layers hold together, by blocks of 4096. */
  dataBytes: number
  /** Bytes that its files take on this host's disk, as du counts them. */
  allocatedBytes: number
  chunkCount: number
  /** Format of the file that it was imported from. */
  format: ImageState['format']
  arch: ImageConfig['arch']
  machine: ImageConfig['machine']
  firmware: ImageConfig['firmware']
  boot?: ImageConfig['boot']
  /** RFC 3339, UTC. */
  importedAt: string
  /**
   * When somebody last began or ceased to use it; when it was imported if nobody has. RFC 3339,
   * UTC.
   */
  lastUsedAt: string
  pinned: boolean
}
