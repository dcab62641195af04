import { sleep, withTimeout } from '../base/clock.ts'
import { failure } from '../base/errors.ts'
import { messageOf } from '../base/log.ts'
import { findShortage } from './disk-space.ts'
import { recordOf } from './image-folder.ts'
import type { ImageRecord } from './image-record.ts'
import { demandUnused } from './image-users.ts'
import { findWhole, type StoreContext } from './store-context.ts'

/** Removes an image in its turn. @throws imageInUse, imagePinned, notFound */
export async function removeImage(
  context: StoreContext,
  digest: string,
): Promise<{ freedBytes: number }> {
  demandUnused(digest, findWhole(context, digest).state)
  await letGo(context, digest)
  const freedBytes = await context.shelf.take(digest)
  context.components.log.info({ image: digest, freedBytes }, 'an image was removed')
  return { freedBytes }
}

/** How long others have to close an image's files; what is open longer only frees its room late. */
const letGoMs = 5_000

/** Lets others close the files of an image that goes. */
export async function letGo(context: StoreContext, digest: string): Promise<void> {
  const { onRemove } = context.init
  if (onRemove === undefined) return
  const { clock, log } = context.components
  try {
    const what = 'closing the files of an image'
    const late = () => failure('timeout', { what, timeoutMs: letGoMs })
    await withTimeout(clock, letGoMs, onRemove(digest), late)
  } catch (error) {
    log.warn({ image: digest, error: messageOf(error) }, 'files of an image may be open still')
  }
}

/** Whether nobody would miss an image. */
export function isIdle(
  context: StoreContext,
  digest: string,
  keep: (record: ImageRecord) => boolean,
): boolean {
  const image = context.shelf.images.get(digest)
  if (image === undefined || context.copied.has(digest)) return false
  return image.state.users.length === 0 && !image.state.pinned && !keep(recordOf(digest, image))
}

/** Removes, in its turn, what nobody uses, pinned or wants to keep. */
export async function pruneImages(
  context: StoreContext,
  records: ImageRecord[],
  keep: (record: ImageRecord) => boolean = () => false,
): Promise<{ removed: ImageRecord[]; freedBytes: number }> {
  const removed: ImageRecord[] = []
  let freedBytes = 0
  for (const record of records) {
    if (!isIdle(context, record.digest, keep)) continue
    freedBytes += (await removeImage(context, record.digest)).freedBytes
    removed.push(record)
  }
  return { removed, freedBytes }
}

/** How long freed space may take to show: XFS frees in the background. */
const freedMs = 1_000
const lookMs = 50

/**
 * Removes images until so many bytes more can be written, the one first that was not used for the
 * longest. What is used, pinned, kept or copied from stays, and so does what is on its way. All
 * stay when all that could go would not be enough: nothing is to be removed in vain.
 */
export async function makeRoom(
  context: StoreContext,
  neededBytes: number,
): Promise<{ removed: ImageRecord[]; freedBytes: number }> {
  const { limits, folder, keep = () => false } = context.init
  const { clock } = context.components
  const bounds = {
    folder,
    reserveBytes: limits.imageReserveBytes,
    quotaBytes: limits.imageQuotaBytes,
  }
  const shortBytes = async () => (await findShortage(bounds, neededBytes))?.shortBytes ?? 0
  const removed: ImageRecord[] = []
  let freedBytes = 0
  let short = await shortBytes()
  const candidates = leastRecentFirst(context).filter(({ digest }) => isIdle(context, digest, keep))
  const mostBytes = candidates.reduce((sum, { allocatedBytes }) => sum + allocatedBytes, 0)
  if (neededBytes > 0 && mostBytes < short) return { removed, freedBytes }
  for (const record of candidates) {
    if (short <= 0) break
    const freed = await context.turns.take(async () =>
      isIdle(context, record.digest, keep) ? removeImage(context, record.digest) : undefined,
    )
    if (freed === undefined) continue
    context.metrics.evicted()
    context.init.onEvicted?.(record.digest)
    removed.push(record)
    freedBytes += freed.freedBytes
    const isEnough = freed.freedBytes >= short
    const deadlineMs = clock.monotonicMs() + freedMs
    short = await shortBytes()
    while (isEnough && short > 0 && clock.monotonicMs() < deadlineMs) {
      await sleep(clock, lookMs)
      short = await shortBytes()
    }
  }
  return { removed, freedBytes }
}

function leastRecentFirst({ shelf }: StoreContext): ImageRecord[] {
  const key = (record: ImageRecord) => `${record.lastUsedAt} ${record.importedAt} ${record.digest}`
  return [...shelf.images]
    .map(([digest, image]) => recordOf(digest, image))
    .sort((one, other) => (key(one) < key(other) ? -1 : 1))
}
