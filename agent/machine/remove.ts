import { isFailure } from '../../base/errors.ts'
import type { ImageStore } from '../../images/image-store.ts'
import { removeGuestFolder } from '../../kvm/guest-folder.ts'
import { dropFetch } from './image-fetch.ts'
import { closeArrival } from './open-arrival.ts'
import { killGuest, type StepContext } from './step-context.ts'
import type { Tracked } from './tracked.ts'

/** What removing needs. */
export type RemoveContext = Pick<
  StepContext,
  'guardian' | 'processes' | 'images' | 'imageUseChanged' | 'reservations'
>

/** Removes what is on this host of a guest that does not run. May be repeated. */
export async function removeGuest(
  tracked: Pick<Tracked, 'uid' | 'folder' | 'fetch' | 'arrival'>,
  context: RemoveContext,
): Promise<void> {
  const { uid, folder } = tracked
  dropFetch(tracked)
  await closeArrival(tracked)
  await removeGuestFolder(folder)
  await releaseGuest(uid, context)
}

/** Lets go of what is held for a guest of which there is no file here. May be repeated. */
export async function releaseGuest(
  uid: string,
  {
    images,
    imageUseChanged,
    reservations,
  }: Pick<RemoveContext, 'images' | 'imageUseChanged' | 'reservations'>,
): Promise<void> {
  // Not only the one in its record: a start that failed early had no record yet.
  for (const digest of digestsOf(images)) await images.release(digest, uid)
  imageUseChanged()
  reservations.release(uid)
}

/**
 * Lets go of images that are held for guests of which nothing is here: a daemon that was killed
 * between the removal of a guest's folder and the rest, or before there was one, left them so. To
 * be called before anything is started.
 */
export async function releaseLeftovers(
  isHere: (uid: string) => boolean,
  images: Pick<ImageStore, 'list' | 'partials' | 'users' | 'release'>,
): Promise<void> {
  for (const digest of digestsOf(images)) {
    for (const { uid } of images.users(digest)) {
      if (!isHere(uid)) await images.release(digest, uid)
    }
  }
}

/** Of all images here, whole or on their way. */
function digestsOf(images: Pick<ImageStore, 'list' | 'partials'>): string[] {
  const partials = images.partials().map(({ record }) => record)
  return [...images.list(), ...partials].map(({ digest }) => digest)
}

/**
 * Ends and removes a guest whose machine is not this host's any more. At once: another copy may be
 * about to start, and nobody will ask for what this one wrote.
 * @returns whether nothing is left; if not, its end is still to come
 */
export async function evictGuest(tracked: Tracked, context: RemoveContext): Promise<boolean> {
  const { uid } = tracked
  const process = context.processes.get(uid)
  tracked.stopping?.abort()
  if (process !== undefined && process.ended === undefined) {
    await killGuest(tracked, context)
    return false
  }
  const { runtime } = tracked
  tracked.runtime = undefined
  await runtime?.close()
  if (process !== undefined) await forgetProcess(uid, context)
  await removeGuest(tracked, context)
  return true
}

/** Frees the name; that may have been done already, by a request whose answer was lost. */
export async function forgetProcess(
  uid: string,
  { guardian, processes }: Pick<StepContext, 'guardian' | 'processes'>,
): Promise<void> {
  try {
    await guardian.forget(uid)
  } catch (error) {
    if (!isFailure(error, 'guardianProcessNotFound')) throw error
  }
  processes.delete(uid)
}
