import { failure } from '../../base/errors.ts'
import type { ProvidedImage, WantedImage } from '../images/image-supply.ts'
import type { ImageFetch } from './arrival.ts'
import type { MachineContext } from './machine-context.ts'
import type { Tracked } from './tracked.ts'

/** What asking for an image needs. */
export type FetchContext = Pick<MachineContext, 'images' | 'supply' | 'clock'> & { wake(): void }

/**
 * An image that a machine can start from. What is not here whole is asked for beside the work on
 * the machine, which may be deleted meanwhile.
 * @returns undefined while it is asked for; `wake` is called when that has ended
 * @throws imageContentMissing, diskFull
 */
export function fetchImage(
  tracked: Tracked,
  wanted: WantedImage,
  context: FetchContext,
): ProvidedImage | undefined {
  const { images, supply } = context
  const { digest } = wanted
  const whole = images.get(digest) && supply.find(digest)
  const fetch = tracked.fetch?.digest === digest ? tracked.fetch : undefined
  if (whole !== undefined || fetch?.outcome !== undefined) {
    dropFetch(tracked)
    if (whole !== undefined) return whole
    const { provided, error } = fetch?.outcome ?? {}
    // What is neither whole nor on its way is no image to start from.
    if (provided?.filling !== undefined || images.get(digest) !== undefined) return provided
    throw error ?? failure('imageContentMissing', { name: wanted.name, digest })
  }
  if (fetch === undefined) {
    dropFetch(tracked)
    tracked.fetch = beginFetch(wanted, context)
  }
  return undefined
}

/** Asks no more for the image of a machine that is not to start. */
export function dropFetch(tracked: Pick<Tracked, 'fetch'>): void {
  const { fetch } = tracked
  tracked.fetch = undefined
  fetch?.abort()
}

function beginFetch(wanted: WantedImage, { supply, clock, wake }: FetchContext): ImageFetch {
  const ending = new AbortController()
  const reason = failure('unavailable', {
    what: 'the image of a machine',
    detail: 'the machine is not to start any more',
    advice: '',
  })
  const fetch: ImageFetch = {
    digest: wanted.digest,
    requestedAtMs: clock.wallMs(),
    outcome: undefined,
    abort: () => ending.abort(reason),
  }
  supply
    .provide(wanted, ending.signal)
    .then(
      provided => {
        fetch.outcome = { provided }
      },
      error => {
        fetch.outcome = { error }
      },
    )
    .finally(() => {
      if (!ending.signal.aborted) wake()
    })
  return fetch
}
