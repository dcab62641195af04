import { failure } from '../../base/errors.ts'
import { messageOf } from '../../base/log.ts'
import type { ImageStore } from '../../images/image-store.ts'
import type { ImagePusher } from '../../images/push/image-pusher.ts'
import { createRegistryClient } from '../../images/registry/client.ts'
import { formatReference, parseReference } from '../../images/registry/reference.ts'
import type { OpenSource } from '../../images/transfer/open-source.ts'
import type { PushEvent, PushRequest } from '../../interface/api/subresources.ts'
import type { Image } from '../../resources/image.ts'
import { type HeldImage, readHeldImage, readLocations } from './held-image.ts'
import { createLatest } from './latest.ts'
import type { LookupComponents } from './lookup.ts'
import type { ImageOrigins } from './origins.ts'
import { registryAccess } from './registry-access.ts'

/** What sending images needs. */
export interface PushImagesComponents extends LookupComponents {
  images: ImageStore
  pusher: ImagePusher
  origins: ImageOrigins
  openSource: OpenSource
}

/**
 * Sends an image that lies here whole to a registry.
 * @throws imageNotHere, referenceInvalid, what the registry refuses, the signal's reason
 */
export async function* pushImage(
  image: Image,
  request: PushRequest & { signal: AbortSignal },
  components: PushImagesComponents,
): AsyncGenerator<PushEvent> {
  const { images, pusher, origins, openSource, log } = components
  const { signal } = request
  const { name, namespace = '' } = image.metadata
  const digest = image.status?.digest
  if (digest === undefined || images.get(digest) === undefined) {
    const hosts = (image.status?.hosts ?? []).join(', ') || 'no host'
    throw failure('imageNotHere', { name, hosts })
  }
  const target = parseReference(request.reference)
  if (target.digest !== undefined) {
    const detail = 'a push names a tag, the digest follows from what is pushed'
    throw failure('referenceInvalid', { reference: request.reference, detail })
  }
  const { host, repository, tag = 'latest' } = target
  const access = await registryAccess({ host, namespace, secret: request.pushSecret }, components)
  const destination = createRegistryClient(access, components)
  const { sources: described } = await origins.of(image, signal)
  const sources = await Promise.all(described.map(openSource))
  const news = createLatest<PushEvent>()
  const folder = await readHeldImage(images, digest)
  const origin = await originOf(image, host, folder)
  const work = pusher
    .push({ image: folder, repository, tag, ...(origin && { origin }) }, destination, sources, {
      signal,
      onProgress: ({ doneBytes, totalBytes }) =>
        news.say({ progress: { stage: 'Pushing', doneBytes, totalBytes } }),
    })
    .finally(() => news.end())
  try {
    yield* news.read()
    const pushed = await work
    const reference = formatReference({ host, repository, tag })
    const { newChunkCount: chunks, packBytes: sentBytes } = pushed
    log.info({ image: digest, reference, sentBytes }, 'an image was pushed')
    yield { pushed: { reference, digest: pushed.digest, sentBytes, chunks } }
  } finally {
    await work.catch(error => log.debug({ error: messageOf(error) }, 'a push ended'))
    await Promise.allSettled([destination.close(), ...sources.map(source => source.close())])
  }
}

/** Where its chunks lie already, if it came from the same registry. */
async function originOf({ spec, status }: Image, host: string, held: HeldImage) {
  if (spec.source?.registry === undefined || status?.resolved === undefined) return undefined
  const from = parseReference(status.resolved)
  if (from.host !== host) return undefined
  return { repository: from.repository, locations: await readLocations(held) }
}
