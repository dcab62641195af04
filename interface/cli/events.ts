import type { Event } from '../../resources/event.ts'
import type { Resource } from '../../resources/kind.ts'
import type { ApiClient } from './api-client.ts'
import { eventName } from './kinds.ts'
import { listObjects } from './resource-client.ts'
import { isRecord } from './untyped.ts'

function isEvent(object: object): object is Event {
  return 'involvedObject' in object && isRecord(object.involvedObject)
}

/**
 * What happened to an object, the oldest first. Events of an object without a namespace lie in the
 * default one, as Kubernetes has it.
 */
export async function eventsOf(
  client: ApiClient,
  namespace: string,
  object: Resource,
): Promise<Event[]> {
  const { name, uid } = object.metadata
  const at = object.metadata.namespace ?? 'default'
  const fieldSelector = `involvedObject.kind=${object.kind},involvedObject.name=${name}`
  const selection = {
    namespace: object.metadata.namespace === undefined ? at : namespace,
    fieldSelector,
  }
  const { items } = await listObjects(client, eventName, selection)
  return items
    .filter(isEvent)
    .filter(event => event.involvedObject.uid === undefined || event.involvedObject.uid === uid)
    .sort((a, b) => timeOf(a) - timeOf(b))
}

function timeOf(event: Event): number {
  return Date.parse(event.lastTimestamp ?? event.metadata.creationTimestamp ?? '') || 0
}
