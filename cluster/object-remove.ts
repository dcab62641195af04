import { timestamp } from '../base/clock.ts'
import type { Kind, Resource } from '../resources/kind.ts'
import { askGuards } from './object-guards.ts'
import { assertPreconditions, type ObjectReference, objectNotFound } from './object-record.ts'
import type { ObjectsContext, RemoveOptions } from './object-types.ts'
import { casLoop } from './object-update.ts'

/** See Objects.remove. */
export async function removeObject<T extends Resource>(
  context: ObjectsContext,
  kind: Kind<T>,
  reference: ObjectReference,
  options: RemoveOptions,
): Promise<T> {
  const removed = await casLoop(context, kind, reference, options, async current => {
    assertPreconditions(kind, current, options)
    if (current.metadata.deletionTimestamp !== undefined) {
      return shortenGrace(current, options.gracePeriodSeconds)
    }
    const compare = await askGuards(context, kind, guard => guard.remove?.(current))
    return { object: markDeleting(context, current, options.gracePeriodSeconds), compare }
  })
  if (removed === undefined) throw objectNotFound(kind, reference.name)
  return removed
}

function markDeleting<T extends Resource>(
  context: ObjectsContext,
  current: T,
  graceSeconds: number | undefined,
): T {
  const { generation } = current.metadata
  const metadata = {
    ...current.metadata,
    deletionTimestamp: timestamp(context.clock),
    ...(graceSeconds === undefined ? {} : { deletionGracePeriodSeconds: graceSeconds }),
    ...(generation === undefined ? {} : { generation: generation + 1 }),
  }
  return { ...current, metadata }
}

/** Who asks again may make it faster, never slower (as Kubernetes has it). */
function shortenGrace<T extends Resource>(
  current: T,
  graceSeconds: number | undefined,
): { object: T } | undefined {
  const before = current.metadata.deletionGracePeriodSeconds ?? Number.POSITIVE_INFINITY
  if (graceSeconds === undefined || graceSeconds >= before) return undefined
  const metadata = { ...current.metadata, deletionGracePeriodSeconds: graceSeconds }
  return { object: { ...current, metadata } }
}
