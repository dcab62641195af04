const KiB = 1024
const MiB = 1024 * KiB

/** The bounds of images: kept, brought here, sent, given to others. See Limits. */
export interface ImageLimits {
  // Images
  /** Imports at work at once; each takes a thread and up to a core. */
  imageImports: number
  /** Bytes that an import leaves free on the disk, so that the store, logs and guests can go on. */
  imageReserveBytes: number
  /** Bytes that all images together may take; by default their disk alone is the bound. */
  imageQuotaBytes: number
  /** Bytes of one kernel or initrd that belongs to an image. */
  bootFileBytes: number
  /**
   * Chunks of one layer: with chunks of at most 1 MiB, a bound on what one image holds. Also the
   * extents that they have together, which in memory take more than the chunks.
   */
  layerChunks: number
  /** Commits at work at once; each copies a disk and takes a thread. */
  commits: number
  /** Layers of an image that a commit adds one to; of more, it makes one. */
  commitLayers: number
  /** Time in milliseconds that copying the disk of a guest that runs may take. */
  snapshotMs: number
  /** Time in milliseconds for which a guest's file systems are frozen at most for it. */
  freezeMs: number
  /** Clients of one NBD export at once; a guest has one. */
  nbdConnections: number
  /** Time in milliseconds that a client may take for the handshake. */
  nbdHandshakeMs: number
  /** Options in one handshake. */
  nbdOptions: number
  /** Bytes of one read: what clients may ask for that do not ask how much (NBD protocol). */
  nbdRequestBytes: number
  /** Requests, and bytes of them, that one export has under way at once. */
  nbdRequests: number
  nbdBytes: number
  /** Extents in one answer about what is data. */
  nbdExtents: number
  /**
   * Time in milliseconds that a read may wait for its part of the image; then the guest is paused.
   * Below the 30 s after which drivers of guests give their disk up.
   */
  nbdReadMs: number

  // Registries
  /** Connections to one registry at once. */
  registryConnections: number
  /** Milliseconds in which a registry must answer, or take some of what it is sent. */
  registryAnswerMs: number
  /** Bytes of a body that must come within `registryProgressMs` of waiting for it. */
  registryProgressBytes: number
  registryProgressMs: number
  /** Tries of one request, and the longest wait that a registry may ask for before the next. */
  registryTries: number
  registryRetryAfterMs: number
  /** Bytes of a manifest or an index of a registry. */
  registryManifestBytes: number
  /** Layers of a container image. */
  registryContainerLayers: number
  /** Tags of one repository that are listed. */
  registryTags: number
  /** Tokens of a registry that are kept. */
  registryTokens: number
  /** Bytes of a blob that are sent at once; what is cut is sent again from its last piece on. */
  registryPieceBytes: number
  /** Bytes that are asked for at once, and bytes between two chunks that are read over. */
  registryRangeBytes: number
  registryGapBytes: number
  /** Ranges under way at once for one reader. */
  registryRangesAtOnce: number
  /** Bytes of an image's manifest in a registry. */
  imageManifestBytes: number
  /** Bytes of an image's config. */
  imageConfigBytes: number
  /** Bytes of the index, and of the locations, of one layer. */
  layerIndexBytes: number
  /** Layers of one image. */
  imageLayers: number
  /** Packs that one image lies in. */
  imagePacks: number
  /** Bytes of one pack. */
  packBytes: number
  /** Pushes at once; each takes a thread, and twice `pushPackBytes` of the disk. */
  imagePushes: number
  /** Bytes and chunks of a pack that we make: what is sent again when we are killed in the middle. */
  pushPackBytes: number
  pushPackChunks: number
  /** Packs that we remember to have sent; the oldest are forgotten first. */
  pushedPacks: number
  /** Blobs that a registry is asked for at once, whether it has them. */
  pushQuestionsAtOnce: number

  // Filling images
  /** Images that are filled at once. */
  imageFillings: number
  /** Sources of one image that are asked. */
  fillSources: number
  /** Plain bytes that are asked for and not here yet: of all images, and of one source. */
  fillBytesInFlight: number
  sourceBytesInFlight: number
  /** Requests under way at once with one source of one image. */
  sourceRequestsAtOnce: number
  /** Reads of guests that wait for chunks of one image at once. */
  fillReadsWaiting: number
  /** Times in a row that the thread which fills images is started again after it died. */
  transferRestarts: number
  /** Hosts that served rot which are remembered. */
  rottenSources: number

  // Disks in containers, on HTTPS servers and in folders
  /** Entries of all layers of a container image that are looked at for its disk. */
  wrappedEntries: number
  /** Bytes between two entries of an archive: a long name, attributes, the filling at its end. */
  wrappedHeaderBytes: number
  /** Plain bytes of a packed layer for each of its packed bytes: gzip can make 1032 of one. */
  wrappedRatio: number
  /** Redirects that are followed to a disk. */
  diskRedirects: number
  /** Files and folders of a library that are looked at, and how deep its folders go. */
  libraryEntries: number
  libraryDepth: number
  /** Images of one OCI layout in a library. */
  libraryImages: number
  /** Milliseconds that one call to a library's file system may take. */
  libraryCallMs: number

  // The fleet: parts of images for other hosts
  /** Connections to the transfer port at once, and those from one address. */
  transferConnections: number
  transferConnectionsPerSource: number
  /** Requests under way at once on one connection. */
  transferRequestsAtOnce: number
  /** Chunks that are read, hashed and sent at once: to all hosts, and to one. */
  transferChunksAtOnce: number
  transferChunksPerHost: number
  /** Bytes of one request for chunks, and how many it may name. */
  transferRequestBytes: number
  transferRequestChunks: number
  /** Time in milliseconds for which one side may neither send nor take anything. */
  transferStallMs: number
  /** Time in milliseconds after which a connection that nobody uses is closed. */
  transferIdleMs: number
  /** Chunks of layers that are known in memory to be served; of the last used ones. */
  transferChunksKnown: number
}

/** What is in use. */
export const defaultImageLimits: ImageLimits = {
  imageImports: 4,
  imageReserveBytes: 1 * 1024 * MiB,
  imageQuotaBytes: Number.MAX_SAFE_INTEGER,
  bootFileBytes: 512 * MiB,
  layerChunks: 8 * 1024 * 1024,
  commits: 2,
  commitLayers: 32,
  snapshotMs: 3_600_000,
  freezeMs: 10_000,
  nbdConnections: 16,
  nbdHandshakeMs: 10_000,
  nbdOptions: 64,
  nbdRequestBytes: 32 * MiB,
  nbdRequests: 256,
  nbdBytes: 64 * MiB,
  nbdExtents: 1024,
  nbdReadMs: 20_000,
  registryConnections: 8,
  registryAnswerMs: 60_000,
  registryProgressBytes: 32 * KiB,
  registryProgressMs: 30_000,
  registryTries: 6,
  registryRetryAfterMs: 120_000,
  registryManifestBytes: 4 * MiB,
  registryContainerLayers: 256,
  registryTags: 10_000,
  registryTokens: 64,
  registryPieceBytes: 16 * MiB,
  registryRangeBytes: 8 * MiB,
  registryGapBytes: 128 * KiB,
  registryRangesAtOnce: 4,
  imageManifestBytes: 4 * MiB,
  imageConfigBytes: 256 * KiB,
  layerIndexBytes: 64 * MiB,
  imageLayers: 128,
  imagePacks: 16_384,
  packBytes: 512 * MiB,
  imagePushes: 4,
  pushPackBytes: 64 * MiB,
  pushPackChunks: 512,
  pushedPacks: 4_096,
  pushQuestionsAtOnce: 8,
  imageFillings: 64,
  fillSources: 64,
  fillBytesInFlight: 128 * MiB,
  sourceBytesInFlight: 32 * MiB,
  sourceRequestsAtOnce: 8,
  fillReadsWaiting: 1_024,
  transferRestarts: 5,
  rottenSources: 1_024,
  wrappedEntries: 10_000,
  wrappedHeaderBytes: 256 * KiB,
  wrappedRatio: 2_048,
  diskRedirects: 3,
  libraryEntries: 10_000,
  libraryDepth: 8,
  libraryImages: 1_000,
  libraryCallMs: 15_000,
  transferConnections: 512,
  transferConnectionsPerSource: 16,
  transferRequestsAtOnce: 16,
  transferChunksAtOnce: 64,
  transferChunksPerHost: 16,
  transferRequestBytes: 64 * KiB,
  transferRequestChunks: 4_096,
  transferStallMs: 20_000,
  transferIdleMs: 60_000,
  transferChunksKnown: 1_000_000,
}
