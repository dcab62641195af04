import type { Resource } from '../../resources/kind.ts'
import type { Connection } from './command-module.ts'
import type { Invocation } from './invocation.ts'
import { imageName, qualifiedName } from './kinds.ts'
import { note, print } from './output.ts'
import { deleteObject, listObjects } from './resource-client.ts'
import { StatusError } from './status-error.ts'
import { memberAt } from './untyped.ts'

/** Which images go. */
export interface PruneInit {
  /** Only those not used for so long. */
  olderThanMs: number
  /** Only say which. */
  dryRun: boolean
}

/** Whether no machine lies upon an image, nobody pinned it, and it was not used for a while. */
export function isPrunable(image: Resource, olderThanMs: number, nowMs: number): boolean {
  if (memberAt(image, 'spec.pinned') === true || image.metadata.deletionTimestamp) return false
  if (memberAt(image, 'status.phase') === 'Importing') return false
  const users = memberAt(image, 'status.users')
  if (Array.isArray(users) && users.length > 0) return false
  const used = memberAt(image, 'status.lastUsedAt') ?? memberAt(image, 'status.importedAt')
  const sinceMs = Date.parse(String(used ?? image.metadata.creationTimestamp ?? ''))
  return olderThanMs === 0 || nowMs - sinceMs >= olderThanMs
}

/** Deletes the images that nobody uses. One that came into use meanwhile is left, and said so. */
export async function pruneImages(
  init: PruneInit,
  { client, namespace }: Connection,
  invocation: Invocation,
): Promise<void> {
  const { items } = await listObjects(client, imageName, { namespace })
  const nowMs = invocation.clock.wallMs()
  const old = items.filter(image => isPrunable(image, init.olderThanMs, nowMs))
  if (old.length === 0) await note(invocation, `No images to remove in namespace ${namespace}.`)
  for (const { metadata } of old) {
    const label = qualifiedName(imageName, metadata.name)
    if (init.dryRun) {
      await print(invocation, `${label} would be deleted`)
      continue
    }
    try {
      await deleteObject(client, imageName, { namespace, name: metadata.name })
      await print(invocation, `${label} deleted`)
    } catch (thrown) {
      if (!(thrown instanceof StatusError)) throw thrown
      await note(invocation, `${label} stays: ${thrown.message}`)
    }
  }
}
