/** A registry as a push needs it (registry/). All throw when the signal is aborted. */
export interface Destination {
  /** `registry.example.test:5000` */
  readonly host: string
  /** Bytes of a blob; undefined when the repository does not have it. */
  blobBytes(repository: string, digest: string, signal: AbortSignal): Promise<number | undefined>
  /** Takes a blob over from another repository. @returns whether the registry did it */
  mountBlob(repository: string, digest: string, from: string, signal: AbortSignal): Promise<boolean>
  /**
   * Sends a blob in pieces; takes up again where it was cut.
   * @param onSent told of the bytes that are with the registry so far, 0 to the blob's size
   */
  uploadBlob(
    repository: string,
    blob: OutgoingBlob,
    signal: AbortSignal,
    onSent?: (bytes: number) => void,
  ): Promise<void>
  /** A blob, compared with its digest. @throws notFound */
  readBlob(
    repository: string,
    digest: string,
    limitBytes: number,
    signal: AbortSignal,
  ): Promise<Buffer>
  /** What a tag or digest names now; undefined when there is nothing. */
  readManifest(
    repository: string,
    reference: string,
    signal: AbortSignal,
  ): Promise<Buffer | undefined>
  /** @returns the digest under which the registry has it, as it says (Docker-Content-Digest) */
  putManifest(
    repository: string,
    reference: string,
    manifest: { mediaType: string; bytes: Buffer },
    signal: AbortSignal,
  ): Promise<string>
}

/** A blob that is to be sent. */
export interface OutgoingBlob {
  digest: string
  sizeBytes: number
  /** Some of its bytes; asked for again where a piece has to be sent anew. */
  read(offsetBytes: number, lengthBytes: number): Promise<Uint8Array>
}
