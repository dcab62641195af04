import { rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Clock } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import { makeFolder } from '../../base/files.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import type { ImageSource } from '../sources/source.ts'
import type { CoveredChunksComponents } from './covered-chunks.ts'
import type { Destination } from './destination.ts'
import { createPackLedger } from './pack-ledger.ts'
import { type Pushed, type PushOptions, pushImage } from './push-image.ts'
import type { PushRequest } from './push-request.ts'

/** What a pusher needs. */
export interface ImagePusherComponents extends Pick<CoveredChunksComponents, 'findChunk'> {
  clock: Clock
  limits: Limits
  log: Log
}

/** Sends images to registries. */
export interface ImagePusher {
  /**
   * See pushImage.
   * @param destination stays the caller's, who closes it
   * @param sources of chunks that are neither with the registry nor on this host
   * @throws tooMany besides
   */
  push(
    request: PushRequest,
    destination: Destination,
    sources: readonly ImageSource[],
    options: PushOptions,
  ): Promise<Pushed>
}

/**
 * A pusher with a folder of its own: what was sent where, and packs under way, of which those that
 * a crash left are removed.
 */
export function createImagePusher(folder: string, components: ImagePusherComponents): ImagePusher {
  const { limits } = components
  const log = components.log.child({ part: 'push' })
  const workFolder = join(folder, 'work')
  rmSync(workFolder, { recursive: true, force: true })
  makeFolder(workFolder)
  const ledger = createPackLedger(join(folder, 'sent'), { limits, log })
  let atOnce = 0
  return {
    async push(request, destination, sources, options) {
      const limit = limits.imagePushes
      if (atOnce >= limit) throw failure('tooMany', { limit, what: 'pushes at once' })
      atOnce++
      try {
        const all = { ...components, log, ledger, destination, sources }
        return await pushImage({ request, workFolder }, all, options)
      } finally {
        atOnce--
      }
    },
  }
}
