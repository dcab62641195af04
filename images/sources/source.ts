import type { LayerIndex } from '../layer-index.ts'

/**
 * Somewhere that parts of images can be had: another host, a registry, a folder. Nothing it says
 * is trusted: whoever reads from it compares every byte with a digest before the byte counts.
 * Everything throws when the signal is aborted, and `sourceFailed` when the source does not
 * deliver.
 */
export interface ImageSource {
  /** For logs, progress and errors: `host mac-2`, `registry example.test/team/base`. */
  readonly name: string
  readonly kind: SourceDescription['kind']
  /**
   * A part that is had whole: a config, the index of a layer, a kernel, an initrd, NVRAM. Not yet
   * compared with its digest; ends with `sourceFailed` when there are more bytes than `limitBytes`.
   * @throws notFound when the source does not have it
   */
  readBlob(digest: string, limitBytes: number, signal: AbortSignal): AsyncIterable<Uint8Array>
  /**
   * The chunks of a layer.
   * @param encoded the layer's index as its digest names it
   * @throws notFound when the source has nothing of the layer
   */
  openLayer(digest: string, index: LayerIndex, signal: AbortSignal): Promise<LayerSource>
  close(): Promise<void>
}

/** The chunks of one layer, as one source has them. */
export interface LayerSource {
  /**
   * Which chunks it has, a bit for each by number (bit n & 7 of byte n >> 3); undefined: all. Asked
   * anew now and then of a source that is itself still filling.
   */
  held(signal: AbortSignal): Promise<Uint8Array | undefined>
  /**
   * Chunks in any order, as their plain bytes, not yet compared with their digests. One that it
   * can't deliver is left out, and the others come.
   */
  fetch(chunks: readonly number[], signal: AbortSignal): AsyncIterable<FetchedChunk>
}

/** One chunk's plain bytes. */
export interface FetchedChunk {
  number: number
  bytes: Buffer
  /**
   * To be called, once at most, when the bytes are not needed any more: a source may use their
   * memory again. Without it they are garbage, and the collector slows what comes next.
   */
  release?(): void
}

/** How a source is found and opened; plain data, so that it can be given to a thread. */
export type SourceDescription = RegistryDescription | PeerDescription | LibraryDescription

/** A repository of a registry, with what its manifest said. */
export interface RegistryDescription {
  kind: 'registry'
  name: string
  access: RegistryAccess
  /** `team/base` */
  repository: string
  /** By layer digest: where its chunks lie in packs (format/locations.ts), encoded. */
  locations: Record<string, Uint8Array>
}

/** How a registry is reached. Secrets are in it: never logged. */
export interface RegistryAccess {
  /** `registry.example.test:5000` */
  host: string
  /** Tried before `host`, in order. */
  mirrors?: string[]
  /** Without TLS; only said by the operator, for this host. */
  plainHttp?: boolean
  /** Trusted beside the system's authorities, PEM. */
  authorities?: string
  credentials?: { username: string; password: string }
  /** Only a user named it: it is not reached where an address means this host or its link. */
  outwardOnly?: boolean
}

/** Another host of the fleet, by its transfer port (peers/). */
export interface PeerDescription {
  kind: 'peer'
  /** The host's name. */
  name: string
  /**
   * The URI that its certificate has to carry, whole: fleet, host and this membership of it. Who
   * has the address but another certificate is not spoken to.
   */
  identity: string
  address: string
  port: number
}

/** A folder that others fill, for instance on NFS (library/). */
export interface LibraryDescription {
  kind: 'library'
  name: string
  /** The library itself: nothing outside of it is read. */
  folder: string
  /** Names of folders, from the library to the image's OCI layout. */
  layout: string[]
  /** By layer digest: where its chunks lie in packs (format/locations.ts), encoded. */
  locations: Record<string, Uint8Array>
}
