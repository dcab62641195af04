import { createHash } from 'node:crypto'
import { failure, messageOf } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import { decodeConfig } from '../../images/decode-config.ts'
import type { ImageStore } from '../../images/image-store.ts'
import { digestOf } from '../../images/layer-index.ts'
import type { ImageSource, SourceDescription } from '../../images/sources/source.ts'
import type { OpenSource } from '../../images/transfer/open-source.ts'
import type { ImageOrigin, ImageParts } from './origins.ts'

/** What fetching parts needs. */
export interface PartsComponents {
  images: ImageStore
  /** Opens a source on this thread: for what is small. */
  openSource: OpenSource
  limits: Limits
  log: Log
}

/**
 * Config and layer indexes of an image, from whichever source has them.
 * @returns undefined when none does
 */
export async function fetchParts(
  digest: string,
  { sources }: ImageOrigin,
  components: PartsComponents,
  signal: AbortSignal,
): Promise<ImageParts | undefined> {
  const { limits } = components
  return await fromAny(sources, components, signal, async source => {
    const bytes = await readWhole(source, digest, limits.imageConfigBytes, signal)
    const config = decodeConfig(bytes)
    const layers: Buffer[] = []
    for (const layer of config.layers) {
      layers.push(await readWhole(source, layer.digest, limits.layerIndexBytes, signal))
    }
    return { config, layers }
  })
}

/** Kernel, initrd and NVRAM of a partial image, as far as they are not here. @throws sourceFailed */
export async function fetchBlobs(
  digest: string,
  { sources }: ImageOrigin,
  components: PartsComponents,
  signal: AbortSignal,
): Promise<void> {
  const { images, limits } = components
  for (const [part, blob] of images.partial(digest)?.missingBlobs ?? []) {
    const stored = await fromAny(sources, components, signal, async source => {
      const stream = source.readBlob(blob, limits.bootFileBytes, signal)
      await images.storeBlob(digest, part, { stream, signal })
      return true
    })
    if (stored) continue
    throw failure('sourceFailed', { source: 'every source', detail: `none has the ${part}` })
  }
}

/** What the first source that can gives. */
async function fromAny<T>(
  sources: readonly SourceDescription[],
  { openSource, log }: PartsComponents,
  signal: AbortSignal,
  read: (source: ImageSource) => Promise<T>,
): Promise<T | undefined> {
  for (const description of sources) {
    const source = await openSource(description)
    try {
      return await read(source)
    } catch (error) {
      signal.throwIfAborted()
      log.debug({ source: source.name, error: messageOf(error) }, 'a part is asked elsewhere')
    } finally {
      await source.close()
    }
  }
  return undefined
}

async function readWhole(
  source: ImageSource,
  digest: string,
  limitBytes: number,
  signal: AbortSignal,
): Promise<Buffer> {
  const pieces: Uint8Array[] = []
  let seenBytes = 0
  for await (const piece of source.readBlob(digest, limitBytes, signal)) {
    seenBytes += piece.length
    if (seenBytes > limitBytes) throw sourceSays(source, `${digest} is too large`)
    pieces.push(piece)
  }
  const bytes = Buffer.concat(pieces)
  const found = digestOf(createHash('sha256').update(bytes).digest())
  if (found !== digest) throw sourceSays(source, `what it gave for ${digest} is something else`)
  return bytes
}

function sourceSays({ name }: ImageSource, detail: string): Error {
  return failure('sourceFailed', { source: name, detail })
}
