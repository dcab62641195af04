import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../../base/clock.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import type { Registry } from '../../base/metrics.ts'
import type { Random } from '../../base/random.ts'
import type { EventRecorder } from '../../cluster/event-recorder.ts'
import type { Objects } from '../../cluster/objects.ts'
import type { Store } from '../../cluster/store/store.ts'
import { decodeConfig } from '../../images/decode-config.ts'
import { imageFiles } from '../../images/image-files.ts'
import type { ImageStore } from '../../images/image-store.ts'
import { type Library, openLibrary } from '../../images/library/library.ts'
import { createImagePusher } from '../../images/push/image-pusher.ts'
import { createTransfers } from '../../images/transfer/create-transfers.ts'
import { createOpener } from '../../images/transfer/open-source.ts'
import type { PushEvent, PushRequest } from '../../interface/api/subresources.ts'
import type { Image } from '../../resources/image.ts'
import type { Config } from '../config.ts'
import type { Undo } from '../undo.ts'
import { createFillings, type Fillings } from './fillings.ts'
import { readHeldImage } from './held-image.ts'
import type { ImageSupply } from './image-supply.ts'
import { findImage, needLibrary } from './lookup.ts'
import { createImageSupply } from './open-supply.ts'
import { createImageOrigins } from './origins.ts'
import type { PeerTransfers } from './peer-transfers.ts'
import { type PullController, startPullController } from './pull-controller.ts'
import { pushImage } from './push.ts'
import { createImageRepairs, type ImageRepairs } from './repairs.ts'
import { createSourceResolver } from './resolver.ts'
import { keepRoom, type SpareImages } from './spare-images.ts'

/** Which host, and what it may use. */
export interface ImagesInit {
  config: Config
  hostName: string
  /** Undefined for a host without a fleet. */
  peers: PeerTransfers | undefined
  spare: SpareImages
  /** An image has come or gone here: the others are to be told. */
  onChange(): void
}

/** What bringing and sending images needs. */
export interface ImagesComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
  metrics: Registry
  objects: Objects
  store: Store
  events: EventRecorder
  images: ImageStore
}

/** The images of this host, as the rest of the daemon uses them. */
export interface HostImages {
  supply: ImageSupply
  fillings: Fillings
  /** See pushImage (push.ts). */
  push(image: Image, request: PushRequest & { signal: AbortSignal }): AsyncIterable<PushEvent>
  repairs: ImageRepairs
  /** @throws libraryMissing */
  library(): Library
}

/** Takes up images on their way, and brings what this host is to hold. */
export function startImages(
  init: ImagesInit,
  components: ImagesComponents,
  undo: Undo,
): HostImages {
  const { config, hostName, peers } = init
  const { images, limits, log } = components
  const transfers = createTransfers({ host: hostName, limits }, components)
  undo.add(() => transfers.close())
  if (peers !== undefined) {
    transfers.setTls(peers.tls())
    undo.add(peers.onTls(tls => transfers.setTls(tls)))
  }
  const openSource = createOpener({ ...components, tls: () => peers?.tls() })
  const { imageLibrary } = config
  const library = imageLibrary === undefined ? undefined : openLibrary(imageLibrary, components)
  undo.add(() => library?.close())
  const lookup = { ...components, config, library }
  const origins = createImageOrigins({
    ...components,
    peer: name => (name === hostName ? undefined : peers?.peer(name)),
    find: (image, signal) => findImage(image, lookup, signal),
  })
  const shared = { ...components, config, hostName, origins, openSource, transfers }
  const serve = (digest: string, news: 'begun' | 'progress' | 'whole' | 'ended'): void => {
    if (peers === undefined || news === 'progress') return
    void serveImage(digest, news, peers, images).catch(error => {
      log.warn({ image: digest, error: messageOf(error) }, 'an image is not given to other hosts')
    })
  }
  let controller: PullController | undefined
  const fillings = createFillings(
    {
      onNews(digest, news, error) {
        if (news !== 'whole') serve(digest, news)
        if (error !== undefined) controller?.failed(digest, error)
        else controller?.look(digest)
        if (news !== 'progress') init.onChange()
      },
      onStored: (digest, layer, chunks) => peers?.server.addStored(digest, layer, chunks),
    },
    shared,
  )
  undo.add(() => fillings.stop())
  // Also what was imported here, or made of a machine.
  undo.add(images.onWhole(digest => serve(digest, 'whole')))
  for (const { digest } of images.list()) serve(digest, 'whole')
  for (const digest of fillings.all().keys()) serve(digest, 'begun')
  const resolver = createSourceResolver({ ...lookup })
  const started = startPullController({ ...shared, fillings, resolver })
  undo.add(() => started.stop())
  controller = started
  const pusher = createImagePusher(join(config.dataDir, 'pushes'), {
    ...components,
    findChunk: digest => images.findChunk(digest),
  })
  const onMended = (digest: string) => serve(digest, 'whole')
  const repairs = createImageRepairs({ ...shared, onMended })
  undo.add(() => repairs.stop())
  if (peers !== undefined) undo.add(peers.onRot(rot => repairs.onRot(rot)))
  undo.add(init.spare.follow({ hostName, onEvicted: init.onChange }, components))
  undo.add(keepRoom(images, components))
  return {
    repairs,
    library: () => needLibrary({ library }),
    supply: createImageSupply({ ...components, fillings }),
    fillings,
    push: (image, request) => pushImage(image, request, { ...shared, ...lookup, pusher }),
  }
}

async function serveImage(
  digest: string,
  news: 'begun' | 'whole' | 'ended',
  { server }: PeerTransfers,
  images: ImageStore,
): Promise<void> {
  if (news === 'ended') return await server.removeImage(digest)
  if (news === 'whole') {
    const { path: folder, config } = await readHeldImage(images, digest)
    // It may have gone meanwhile, and the server would never be told.
    return images.get(digest) && server.setImage({ digest, folder, config })
  }
  const folder = images.partial(digest)?.folder
  if (folder === undefined) return
  const config = decodeConfig(await readFile(join(folder, imageFiles.config)))
  // What is there of it is told chunk by chunk.
  const stored = config.layers.map(({ chunkCount }) => new Uint8Array(Math.ceil(chunkCount / 8)))
  server.setImage({ digest, folder, config, stored })
}
