import type { Clock } from '../base/clock.ts'
import { failure } from '../base/errors.ts'
import { type Log, messageOf } from '../base/log.ts'
import { type Again, createWorkQueue } from '../base/work-queue.ts'
import type { Kind } from '../resources/kind.ts'
import { kinds } from '../resources/kinds.ts'
import { defaultNamespace, type Namespace, namespaceKind } from '../resources/namespace.ts'
import { followObjects } from './object-follow.ts'
import type { Guard, Objects } from './objects.ts'

/** What the controller needs. */
export interface NamespaceControllerComponents {
  objects: Objects
  clock: Clock
  log: Log
}

/** A controller that runs. */
export interface NamespaceController {
  /** Ends it; what it began to delete is gone on with by the next one. */
  stop(): Promise<void>
}

/** Objects that wait for their own finalizers are looked at again after this. */
const againMs = 500

/** Refuses to remove the namespace that is meant when none is named. */
export const namespaceGuard: Guard<Namespace> = {
  kind: namespaceKind,
  async remove(namespace) {
    if (namespace.metadata.name === defaultNamespace) {
      throw failure('forbidden', { detail: `the namespace ${defaultNamespace} can not be deleted` })
    }
    return []
  },
}

/**
 * Empties namespaces that are being deleted and then lets go of them. Nothing new comes into such a
 * namespace, because each creation compares the namespace's revision (Objects.create).
 */
export function startNamespaceController(
  components: NamespaceControllerComponents,
): NamespaceController {
  const { objects, clock, log } = components
  const queue = createWorkQueue(
    {
      handle: name => emptyNamespace(objects, log, name),
      backoff: { firstMs: 100, mostMs: 10_000 },
    },
    { clock, log },
  )
  const following = followObjects(namespaceKind, components, namespace => {
    if (namespace.metadata.deletionTimestamp !== undefined) queue.add(namespace.metadata.name)
  })
  return {
    async stop() {
      await following.stop()
      await queue.stop()
    },
  }
}

async function emptyNamespace(objects: Objects, log: Log, name: string): Promise<Again> {
  const namespace = await objects.find(namespaceKind, { name })
  if (namespace?.metadata.deletionTimestamp === undefined) return undefined
  await objects.changeStatus(namespaceKind, { name }, () => ({ phase: 'Terminating' as const }))
  let left = 0
  for (const kind of kinds) {
    if (kind.namespaced) left += await removeAll(objects, log, kind, name)
  }
  if (left > 0) return { againMs }
  const { uid = '' } = namespace.metadata
  await objects.releaseFinalizer(namespaceKind, { name }, namespaceKind.finalizer ?? '', uid)
  return undefined
}

/** Asks for the removal of all objects of a kind; returns how many are still there. */
async function removeAll(
  objects: Objects,
  log: Log,
  kind: Kind,
  namespace: string,
): Promise<number> {
  const { items } = await objects.list(kind, { namespace })
  let left = 0
  for (const { metadata } of items) {
    const { name, uid, deletionTimestamp, finalizers = [] } = metadata
    if (deletionTimestamp === undefined) {
      try {
        await objects.remove(kind, { name, namespace }, uid === undefined ? {} : { uid })
      } catch (error) {
        // An image in use, say: it goes when the machines that use it have gone.
        log.debug({ kind: kind.kind, namespace, name, error: messageOf(error) }, 'not removed yet')
        left++
        continue
      }
    }
    if (finalizers.length > 0) left++
  }
  return left
}
