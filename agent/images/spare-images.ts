import { type Clock, sleep } from '../../base/clock.ts'
import { type Log, messageOf } from '../../base/log.ts'
import { holdersOf } from '../../cluster/image-holders.ts'
import { followObjects } from '../../cluster/object-follow.ts'
import type { Objects } from '../../cluster/objects.ts'
import type { ImageStore } from '../../images/image-store.ts'
import { type Image, imageKind } from '../../resources/image.ts'

/** Knows which images this host can spare when it needs room. */
export interface SpareImages {
  /** Whether an image stays; so does what nobody has told of yet. */
  keep(image: { digest: string }): boolean
  /** One was removed to make room. */
  evicted(): void
  /** Begins to listen, and tells of what was removed. @returns to be called to end it */
  follow(
    init: { hostName: string; onEvicted(): void },
    components: FollowImages,
  ): () => Promise<void>
}

/** What listening needs. */
export interface FollowImages {
  objects: Objects
  clock: Clock
  log: Log
}

/** Images by uid, as far as is needed to know what can be spared. */
interface Known {
  digest: string
  isSpare: boolean
}

/** Until it follows, nothing can be spared. */
export function createSpareImages(): SpareImages {
  const known = new Map<string, Known>()
  let tell = () => {}
  return {
    keep({ digest }) {
      const named = [...known.values()].filter(each => each.digest === digest)
      return named.length === 0 || named.some(({ isSpare }) => !isSpare)
    },
    evicted: () => tell(),
    follow({ hostName, onEvicted }, components) {
      tell = onEvicted
      const following = followObjects(imageKind, components, image => {
        const { uid = '' } = image.metadata
        const digest = image.status?.digest
        if (digest === undefined || image.metadata.deletionTimestamp !== undefined) {
          known.delete(uid)
        } else {
          known.set(uid, { digest, isSpare: canBeSpared(image, hostName) })
        }
      })
      return () => following.stop()
    },
  }
}

/**
 * Whether a host may remove an image that nobody uses there: it was not told to hold it, and it
 * can be had again. Of what came from no source the first of its hosts by name keeps it, so that
 * they do not remove it all at once.
 */
export function canBeSpared({ spec, status }: Image, hostName: string): boolean {
  const copyHosts = status?.copyHosts ?? []
  if (spec.pinned || copyHosts.includes(hostName)) return false
  if (spec.source?.registry !== undefined || spec.source?.library !== undefined) return true
  return holdersOf(status).some(
    ({ host }) => host !== hostName && (host < hostName || copyHosts.includes(host)),
  )
}

/** How often there is looked whether room is short. */
const lookMs = 60_000

/** Makes room before something fails for lack of it. @returns to be called to end it */
export function keepRoom(
  images: Pick<ImageStore, 'makeRoom'>,
  { clock, log }: { clock: Clock; log: Log },
): () => Promise<void> {
  const stopping = new AbortController()
  const { signal } = stopping
  const run = async (): Promise<void> => {
    while (!signal.aborted) {
      await sleep(clock, lookMs, signal).catch(() => {})
      if (signal.aborted) return
      try {
        const { removed, freedBytes } = await images.makeRoom(0)
        if (removed.length > 0) {
          const digests = removed.map(({ digest }) => digest)
          log.info({ images: digests, freedBytes }, 'the disk was short: images were removed')
        }
      } catch (error) {
        log.warn({ error: messageOf(error) }, 'no room could be made for images')
      }
    }
  }
  const running = run()
  return async () => {
    stopping.abort()
    await running
  }
}
