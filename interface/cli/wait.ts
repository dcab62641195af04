import type { Clock } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { Resource } from '../../resources/kind.ts'
import type { ApiClient } from './api-client.ts'
import type { KindName } from './kinds.ts'
import { asResource, listObjects } from './resource-client.ts'
import { isExpired, watchChanges } from './watch.ts'

/** What somebody thinks of an object's state. */
export type Verdict =
  | { is: 'reached' }
  | { is: 'waiting'; state: string }
  /** It will not come to pass by waiting. */
  | { is: 'failed'; state: string }

/** Called with an object at first and after each change; with undefined when there is none. */
export type Judge = (object: Resource | undefined) => Verdict

/** What is waited for. */
export interface WaitInit {
  kind: KindName
  namespace: string
  name: string
  /** For messages: `Ready`, `deleted`. */
  wanted: string
  timeoutMs: number
  judge: Judge
}

/** What waiting needs. */
export interface WaitComponents {
  client: ApiClient
  clock: Clock
  signal: AbortSignal
}

/**
 * Waits until an object is as wanted.
 * @returns the object as it was then; undefined when it was gone
 * @throws waitTimedOut, waitFailed
 */
export async function waitForObject(
  init: WaitInit,
  components: WaitComponents,
): Promise<Resource | undefined> {
  const { wanted, timeoutMs } = init
  const name = `${init.kind.shortNames[0] ?? init.kind.singular} ${init.name}`
  const controller = new AbortController()
  const timer = components.clock.setTimer(timeoutMs, () => controller.abort())
  const signal = AbortSignal.any([components.signal, controller.signal])
  let state = 'nothing is known of it yet'
  try {
    for await (const object of states(init, { ...components, signal })) {
      const verdict = init.judge(object)
      if (verdict.is === 'reached') return object
      state = verdict.state
      if (verdict.is === 'failed') throw failure('waitFailed', { name, wanted, state })
    }
    throw new Error('a watch ends by an error only')
  } catch (thrown) {
    if (!controller.signal.aborted || components.signal.aborted) throw thrown
    throw failure('waitTimedOut', { name, wanted, state, seconds: Math.round(timeoutMs / 1000) })
  } finally {
    timer.cancel()
    controller.abort()
  }
}

/** The object as it is, and again after each change. */
async function* states(
  init: WaitInit,
  components: WaitComponents,
): AsyncGenerator<Resource | undefined> {
  const { kind, namespace, name } = init
  const selection = { namespace, fieldSelector: `metadata.name=${name}` }
  while (true) {
    const { items, resourceVersion } = await listObjects(components.client, kind, selection)
    yield items.find(item => item.metadata.name === name)
    try {
      for await (const event of watchChanges({ kind, selection, resourceVersion }, components)) {
        const object = asResource(event.object, 'a watch')
        if (object.metadata.name !== name) continue
        yield event.type === 'DELETED' ? undefined : object
      }
    } catch (thrown) {
      if (!isExpired(thrown)) throw thrown
    }
  }
}
