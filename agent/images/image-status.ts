import { type Clock, timestamp } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import { earliest, heldBy, holdersOf, latest } from '../../cluster/image-holders.ts'
import type { ImageStore } from '../../images/image-store.ts'
import { withCondition } from '../../resources/condition.ts'
import type { Image } from '../../resources/image.ts'

/** What is told of an image. */
export type ImageStatus = NonNullable<Image['status']>

/** What telling needs. */
export interface ImageStatusComponents {
  images: Pick<ImageStore, 'get' | 'users'>
  hostName: string
  clock: Clock
}

/** The status of an image that lies here; undefined when it does not. */
export function readyStatus(
  digest: string,
  told: ImageStatus | undefined,
  { images, hostName, clock }: ImageStatusComponents,
): ImageStatus | undefined {
  const record = images.get(digest)
  if (record === undefined) return undefined
  const message = 'The image can be used'
  const condition = { type: 'Ready', status: 'True', reason: 'Imported', message } as const
  const users = images.users(digest).map(user => user.name)
  const same = told?.digest === digest ? told : undefined
  const others = holdersOf(same).filter(({ host }) => host !== hostName)
  const filling = (same?.filling ?? []).filter(({ host }) => host !== hostName)
  const conditions = told?.phase === 'Ready' ? told.conditions : undefined
  return {
    phase: 'Ready',
    digest,
    virtualSizeBytes: record.virtualSizeBytes,
    sizeBytes: record.allocatedBytes,
    chunks: record.chunkCount,
    format: record.format,
    hasKernel: record.boot !== undefined,
    ...heldBy([...others, { host: hostName, users }]),
    ...(filling.length > 0 && { filling }),
    ...(same?.copyHosts && { copyHosts: same.copyHosts }),
    ...(told?.resolved !== undefined && { resolved: told.resolved }),
    importedAt: earliest(told?.importedAt, record.importedAt),
    lastUsedAt: latest(told?.lastUsedAt, record.lastUsedAt),
    // What was true already keeps its time.
    conditions: conditions ?? withCondition([], condition, timestamp(clock)),
  }
}

/**
 * The status of an image that is not here. When nobody has it any more, and it can't be had from
 * where it came, what it was is kept, and it may be sent again.
 */
export function missingStatus(
  image: Pick<Image, 'metadata' | 'spec'>,
  status: ImageStatus,
  { hostName, clock }: ImageStatusComponents,
): ImageStatus {
  const { digest = '', conditions = [] } = status
  const others = holdersOf(status).filter(({ host }) => host !== hostName)
  if (others.length > 0 || canBeFetched(image.spec)) return { ...status, ...heldBy(others) }
  if (status.phase !== 'Ready') return status
  const { message } = failure('imageContentMissing', { name: image.metadata.name, digest })
  const condition = { type: 'Ready', status: 'False', reason: 'ContentMissing', message } as const
  const { hosts: _, holders: __, users: ___, ...rest } = status
  return {
    ...rest,
    phase: 'Failed',
    conditions: withCondition(conditions, condition, timestamp(clock)),
  }
}

/** Whether the very content can be had again, whoever holds it. */
function canBeFetched({ source }: Image['spec']): boolean {
  return source?.registry !== undefined || source?.library !== undefined
}

/** The status of an image whose content did not come, with the reason. */
export function failedStatus(
  status: ImageStatus | undefined,
  message: string,
  clock: Clock,
  reason = 'ImportFailed',
): ImageStatus {
  const condition = { type: 'Ready', status: 'False', reason, message } as const
  return {
    phase: 'Failed',
    conditions: withCondition(status?.conditions ?? [], condition, timestamp(clock)),
  }
}
