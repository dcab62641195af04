import type { Clock } from '../base/clock.ts'
import { type Log, messageOf } from '../base/log.ts'
import type { Kind, Resource } from '../resources/kind.ts'
import { type Following, startFollowLoop } from './follow-loop.ts'
import type { Objects } from './objects.ts'

export type { Following } from './follow-loop.ts'

/** What following needs. */
export interface FollowComponents {
  objects: Objects
  clock: Clock
  log: Log
}

/** The wait after a watch broke, before all is listed anew. */
const againMs = 1_000

/**
 * Calls back for every object of a kind: first each one that is there, then each that changed or
 * went (as it last was). When the watch breaks all are listed anew, so the callback sees the
 * present state again and again, never a complete history: level-triggered work only.
 */
export function followObjects<T extends Resource>(
  kind: Kind<T>,
  components: FollowComponents,
  onObject: (object: T) => void,
): Following {
  const { objects, clock, log } = components
  return startFollowLoop(
    {
      once: signal => followOnce(kind, objects, signal, onObject),
      onBroken: error =>
        log.debug({ kind: kind.kind, error: messageOf(error) }, 'a watch broke, listing anew'),
      againMs,
    },
    clock,
  )
}

async function followOnce<T extends Resource>(
  kind: Kind<T>,
  objects: Objects,
  signal: AbortSignal,
  onObject: (object: T) => void,
): Promise<void> {
  const { items, resourceVersion } = await objects.list(kind)
  for (const object of items) onObject(object)
  const selection = { afterResourceVersion: resourceVersion, signal }
  for await (const change of objects.watch(kind, selection)) {
    if (change.type !== 'BOOKMARK') onObject(change.object)
  }
}
