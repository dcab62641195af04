import type { SourceDescription } from '../sources/source.ts'

/**
 * The thread that fills images: it fetches chunks, verifies them, writes them into raw files, and
 * serves those files to guests (NBD) while they fill. This is its handle on the main thread.
 */
export interface Transfers {
  /** Begins, or takes up, to fill a folder that ImageStore.begin made. One per image at a time. */
  fill(request: FillRequest): Filling
  /** Something is about to be filled: the thread takes a quarter of a second to begin. */
  warm(): void
  /** What we show to other hosts, and whom we trust; again at each renewal. */
  setTls(tls: TransferTls | undefined): void
  /** Ends all of it; what is durable stays, and is taken up by the next `fill`. */
  close(): Promise<void>
}

/** Which image is filled, and from where. */
export interface FillRequest {
  /** The image's digest. */
  digest: string
  /** The folder of the partial image: disk.raw, layer.N, config.json, present (partial/). */
  folder: string
  /** Best first; peers are preferred to registries whatever the order. */
  sources: SourceDescription[]
  /** `all`: everything in the end. `demand`: only what guests ask for, until told otherwise. */
  want: 'all' | 'demand'
}

/** An image that is being filled. */
export interface Filling {
  readonly digest: string
  progress(): FillProgress
  /** Calls back at most every 200 ms. @returns to be called to end it */
  onProgress(listener: (progress: FillProgress) => void): () => void
  /** Chunks that are durable and verified now, for the index of chunks; each is told once. */
  onStored(listener: (stored: { layer: number; chunks: number[] }) => void): () => void
  setSources(sources: SourceDescription[]): void
  setWant(want: FillRequest['want']): void
  /**
   * Serves the disk, read only, on a unix socket (NBD), what is asked for being fetched first.
   * @param owner the only user who may connect; undefined when that is us
   */
  serve(path: string, owner?: { uid: number; gid: number }): Promise<Serving>
  /**
   * Resolves when everything is here, verified and durable; exports go on until they are closed.
   * Rejects with diskFull and the like, when nothing of it is open any more, and with
   * imageFillEnded when it was stopped.
   */
  readonly done: Promise<void>
  stop(): Promise<void>
}

/** An export of a disk that is being filled. */
export interface Serving {
  path: string
  /** Ends the export; guests must not use it any more. */
  close(): Promise<void>
}

/** How far an image is. */
export interface FillProgress {
  /** Plain bytes that are here of those that are wanted, and their sum. */
  doneBytes: number
  totalBytes: number
  /** Plain bytes a second over the last few seconds. */
  bytesPerSecond: number
  /** By kind of source, plain bytes. `local` is what other images here had. */
  from: Record<'peer' | 'registry' | 'library' | 'local', number>
  /** Undefined while it goes on; else why nothing comes, for the user. */
  stalled?: string
}

/** Certificates of this host for other hosts, PEM. */
export interface TransferTls {
  certificate: string
  key: string
  authorities: string
}
