import type { Clock } from '../base/clock.ts'
import type { CommandRunner } from '../base/command.ts'
import { failure } from '../base/errors.ts'
import type { Limits } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Registry } from '../base/metrics.ts'
import type { Random } from '../base/random.ts'
import type { Turns } from '../base/turns.ts'
import type { ChunkIndex } from './chunk-index.ts'
import type { ImageFolder } from './image-folder.ts'
import type { ImageMetrics } from './image-metrics.ts'
import type { ImageRecord } from './image-record.ts'
import type { ImageShelf } from './image-shelf.ts'
import type { DiskImportComponents } from './import-disk.ts'
import type { FillingShelf } from './partial/filling-shelf.ts'
import type { SandboxIdentity } from './sandbox.ts'

/** How an image store is opened. */
export interface ImageStoreInit {
  /** Everything lies in here; guests' uids must be able to pass through the folders above. */
  folder: string
  limits: Limits
  /** Path or name of qemu-img; found in the standard folders by default. */
  qemuImg?: string
  /** Who the tools run as that read files from outside; undefined when we are not root. */
  sandboxIdentity: SandboxIdentity | undefined
  /** Puts a damaged chunk index aside and makes it anew from the images. */
  rebuildIndex?: boolean
  /** Images that are not to be removed when room is made, besides those used or pinned. */
  keep?: (record: ImageRecord) => boolean
  /** An image, whole or on its way, is about to go: whoever has its files open lets go of them. */
  onRemove?: (digest: string) => Promise<void>
  /** An image was removed to make room. */
  onEvicted?: (digest: string) => void
}

/** What an image store needs. */
export interface ImageStoreComponents {
  clock: Clock
  log: Log
  random: Random
  run: CommandRunner
  metrics?: Registry
}

/** What the parts of an image store share. */
export interface StoreContext {
  init: ImageStoreInit
  components: ImageStoreComponents
  tools: DiskImportComponents
  chunks: ChunkIndex
  shelf: ImageShelf
  /** See ImageStore.onWhole. */
  onWhole: Set<(digest: string) => void>
  filling: FillingShelf
  turns: Turns
  metrics: ImageMetrics
  /** Imports and the like under way, so that `close` can end them. */
  works: Map<AbortController, Promise<unknown>>
  /** Imports among them. */
  imports: Set<Promise<unknown>>
  /** Images that are being begun, by digest. */
  begins: Map<string, Promise<unknown>>
  /** Images that are being copied from: they stay until that is done. */
  copied: Map<string, number>
}

/** An image that is here whole. @throws notFound */
export function findWhole({ shelf }: StoreContext, digest: string): ImageFolder {
  const image = shelf.images.get(digest)
  if (image === undefined) throw failure('notFound', { resource: 'images', name: digest })
  return image
}

/** An image that is here, whole or in part. @throws notFound */
export function findAny(context: StoreContext, digest: string): ImageFolder {
  return context.filling.images.get(digest) ?? findWhole(context, digest)
}

/** Does some work that the closing of the store ends, and keeps count of it. */
export async function admitWork<Result>(
  { works }: StoreContext,
  asked: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  const ended = new AbortController()
  const signal = asked ? AbortSignal.any([asked, ended.signal]) : ended.signal
  const result = work(signal)
  works.set(ended, result)
  try {
    return await result
  } finally {
    works.delete(ended)
  }
}

/** Keeps an image here while something is copied from it. */
export async function whileCopied<Result>(
  { copied }: StoreContext,
  digest: string,
  work: () => Promise<Result>,
): Promise<Result> {
  copied.set(digest, (copied.get(digest) ?? 0) + 1)
  try {
    return await work()
  } finally {
    const left = (copied.get(digest) ?? 1) - 1
    if (left > 0) copied.set(digest, left)
    else copied.delete(digest)
  }
}
