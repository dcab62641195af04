import { failure, isFailure } from '../../base/errors.ts'
import { messageOf } from '../../base/log.ts'
import type { SourceDescription } from '../../images/sources/source.ts'
import type { Filling, Transfers } from '../../images/transfer/transfers.ts'
import type { Image } from '../../resources/image.ts'
import type { ProvidedImage } from './image-supply.ts'
import type { ImageOrigins } from './origins.ts'
import { fetchBlobs, fetchParts, type PartsComponents } from './parts.ts'

/** What bringing images here needs. */
export interface FillingsComponents extends PartsComponents {
  transfers: Transfers
  origins: ImageOrigins
}

/** Who is told of what happens. */
export interface FillingsInit {
  /**
   * It has begun, got further (a few times a second at most), became whole, or was given up: with
   * an error when nobody wanted that.
   */
  onNews(digest: string, news: 'begun' | 'progress' | 'whole' | 'ended', error?: unknown): void
  /** More of its chunks are durable. */
  onStored(digest: string, layer: number, chunks: number[]): void
}

/** The images that are on their way to this host. */
export interface Fillings {
  /**
   * The image as it is here, whole or on its way with all that a machine needs to start; begun if
   * it is not. `all`: everything comes in the end; `demand`: what guests ask for.
   * @throws imageContentMissing when nobody has it; diskFull; the signal's reason
   */
  bring(image: Image, want: 'all' | 'demand', signal: AbortSignal): Promise<ProvidedImage>
  /** As it is here now, without asking anybody. */
  find(digest: string): ProvidedImage | undefined
  /** Looks anew at who has it. */
  refresh(image: Image): Promise<void>
  /** Those on their way, by digest. */
  all(): ReadonlyMap<string, Filling>
  /** Gives up what is on its way. @throws imageInUse when a machine lies upon it */
  drop(digest: string): Promise<void>
  /** Stops; what is durable is taken up by the next start. */
  stop(): Promise<void>
}

/** Takes up what a daemon before this one had begun: guests may lie upon it already. */
export function createFillings(init: FillingsInit, components: FillingsComponents): Fillings {
  const { images, transfers, origins, log } = components
  const filling = new Map<string, Filling>()
  const beginning = new Map<string, Promise<void>>()
  const dropping = new Set<string>()
  const stopping = new AbortController()

  const find = (digest: string): ProvidedImage | undefined => {
    const whole = images.get(digest)
    const record = whole ?? images.partial(digest)?.record
    if (record === undefined) return undefined
    const under = filling.get(digest)
    const [kernel, initrd] = [images.kernelPath(digest), images.initrdPath(digest)]
    const nvram = images.nvramPath(digest)
    return {
      record,
      ...(whole !== undefined && { disk: images.diskPath(digest) }),
      ...(kernel !== undefined && { kernel }),
      ...(initrd !== undefined && { initrd }),
      ...(nvram !== undefined && { nvram }),
      ...(under !== undefined && { filling: under }),
    }
  }
  const begin = (digest: string, sources: SourceDescription[], want: 'all' | 'demand'): void => {
    const partial = images.partial(digest)
    if (partial === undefined || filling.has(digest)) return
    const { folder } = partial
    const under = transfers.fill({ digest, folder, sources, want })
    filling.set(digest, under)
    init.onNews(digest, 'begun')
    under.onStored(({ layer, chunks }) => {
      init.onStored(digest, layer, chunks)
      images.noteChunks(digest, layer, chunks).catch(error => {
        log.warn({ image: digest, error: messageOf(error) }, 'chunks were not entered')
      })
    })
    under.onProgress(() => init.onNews(digest, 'progress'))
    void under.done
      .then(() => images.complete(digest))
      .then(
        () => {
          filling.delete(digest)
          log.info({ image: digest }, 'an image has arrived')
          init.onNews(digest, 'whole')
        },
        error => {
          filling.delete(digest)
          if (stopping.signal.aborted) return
          if (dropping.has(digest)) return init.onNews(digest, 'ended')
          log.warn({ image: digest, error: messageOf(error) }, 'an image did not arrive')
          init.onNews(digest, 'ended', error)
        },
      )
  }
  /** Everything but the disk's content comes first, so that a machine can start. */
  const prepare = async (image: Image, want: 'all' | 'demand'): Promise<void> => {
    const digest = digestOf(image)
    const { signal } = stopping
    transfers.warm()
    const found = await origins.of(image, signal)
    if (images.partial(digest) === undefined) {
      const parts = found.parts ?? (await fetchParts(digest, found, components, signal))
      if (parts === undefined) {
        throw failure('imageContentMissing', { name: image.metadata.name, digest })
      }
      await images.begin(parts, signal)
    }
    await fetchBlobs(digest, found, components, signal)
    begin(digest, found.sources, want)
    filling.get(digest)?.setSources(found.sources)
  }
  for (const { record } of images.partials()) {
    try {
      begin(record.digest, [], 'all')
    } catch (error) {
      // More than go on at once: whoever needs one of the others asks for it.
      log.warn({ image: record.digest, error: messageOf(error) }, 'an image waits to be taken up')
    }
  }

  return {
    find,
    all: () => filling,
    async bring(image, want, signal) {
      const digest = digestOf(image)
      const lacks = images.partial(digest)?.missingBlobs.size ?? 1
      if (images.get(digest) === undefined && (!filling.has(digest) || lacks > 0)) {
        let work = beginning.get(digest)
        if (work === undefined) {
          work = prepare(image, want).finally(() => beginning.delete(digest))
          beginning.set(digest, work)
        }
        await work
      }
      signal.throwIfAborted()
      if (want === 'all') filling.get(digest)?.setWant('all')
      const provided = find(digest)
      if (provided !== undefined) return provided
      throw failure('imageContentMissing', { name: image.metadata.name, digest })
    },
    async refresh(image) {
      const digest = image.status?.digest
      const under = digest === undefined ? undefined : filling.get(digest)
      if (under === undefined) return
      const { sources } = await origins.of(image, stopping.signal)
      under.setSources(sources)
    },
    async drop(digest) {
      await beginning.get(digest)?.catch(() => {})
      const under = filling.get(digest)
      if (images.partial(digest) === undefined) return
      // Refused before anything stops: a machine goes on.
      if (images.users(digest).length > 0) {
        const users = images.users(digest).map(({ name }) => name)
        throw failure('imageInUse', { digest, users: users.join(', ') })
      }
      dropping.add(digest)
      try {
        await under?.stop()
        filling.delete(digest)
        await images.discard(digest).catch(error => {
          if (!isFailure(error, 'notFound')) throw error
          // It became whole just then.
          return images.get(digest) && images.remove(digest)
        })
      } finally {
        dropping.delete(digest)
      }
    },
    async stop() {
      stopping.abort(failure('unavailable', closing))
      await Promise.allSettled([...filling.values()].map(under => under.stop()))
    },
  }
}

const closing = {
  what: 'fetching images',
  detail: 'the daemon ends',
  advice: 'It goes on by itself when the daemon is back',
}

function digestOf({ metadata: { name }, status }: Image): string {
  if (status?.digest !== undefined) return status.digest
  throw failure('imageNotReady', { name, phase: status?.phase ?? 'Importing' })
}
