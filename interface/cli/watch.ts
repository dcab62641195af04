import { backoffMs } from '../../base/backoff.ts'
import { type Clock, sleep } from '../../base/clock.ts'
import { failure, isFailure } from '../../base/errors.ts'
import { defaultLimits } from '../../base/limits.ts'
import type { ApiClient } from './api-client.ts'
import { connectionError } from './connection-error.ts'
import { readJsonLines } from './json-lines.ts'
import type { KindName } from './kinds.ts'
import { collectionPath, openWatch, type Selection } from './resource-client.ts'
import { StatusError, statusObjectError } from './status-error.ts'
import { isRecord, memberAt, textOf } from './untyped.ts'

/** One change: an object of the kind, or a Table where tables were asked for. */
export interface WatchEvent {
  type: 'ADDED' | 'MODIFIED' | 'DELETED'
  object: Record<string, unknown>
}

/** What to watch. */
export interface WatchInit {
  kind: KindName
  selection: Selection
  /** The revision of the list that was shown; changes after it are reported. */
  resourceVersion: string
  accept?: string
}

/** What a watch needs. */
export interface WatchComponents {
  client: ApiClient
  clock: Clock
  signal: AbortSignal
}

/**
 * Every change after a revision, without gaps. A connection that breaks (the daemon was restarted)
 * is taken up again where it ended, for about half a minute of failures in a row.
 * @throws StatusError with reason Expired when that revision is forgotten: list and watch anew
 */
export async function* watchChanges(
  init: WatchInit,
  components: WatchComponents,
): AsyncGenerator<WatchEvent> {
  const { clock, signal } = components
  let resourceVersion = init.resourceVersion
  let failures = 0
  while (!signal.aborted) {
    const openedMs = clock.monotonicMs()
    let reason: unknown = failure('connectionBroke', { detail: 'the watch ended' })
    try {
      for await (const event of watchOnce({ ...init, resourceVersion }, components)) {
        failures = 0
        resourceVersion = versionOf(event.object) || resourceVersion
        if (event.type !== 'BOOKMARK') yield { type: event.type, object: event.object }
      }
    } catch (thrown) {
      reason = thrown
    }
    if (signal.aborted) throw signal.reason
    // A server may end a quiet watch when it has been open for long: that is no failure.
    failures = clock.monotonicMs() - openedMs > longWatchMs ? 1 : failures + 1
    if (!mayPass(reason) || failures > defaultLimits.clientWatchRetries) throw reason
    await sleep(clock, backoffMs({ firstMs: 50, mostMs: 1_000 }, failures), signal)
  }
}

const longWatchMs = 10_000

/** Whether a later try may succeed: the daemon is away, or is just starting or stopping. */
function mayPass(thrown: unknown): boolean {
  if (thrown instanceof StatusError) return thrown.httpStatus === 503
  return isFailure(thrown, 'connectionBroke') || isFailure(thrown, 'daemonNotThere')
}

interface AnyWatchEvent {
  type: WatchEvent['type'] | 'BOOKMARK'
  object: Record<string, unknown>
}

async function* watchOnce(
  init: WatchInit,
  components: WatchComponents,
): AsyncGenerator<AnyWatchEvent> {
  const { client, signal } = components
  const { kind, selection, resourceVersion, accept } = init
  const request = `GET ${collectionPath(kind, selection.namespace)}`
  const stream = await openWatch(client, kind, selection, { resourceVersion, accept, signal })
  try {
    for await (const value of readJsonLines(stream, defaultLimits.clientAnswerBytes, request)) {
      const event = asEvent(value)
      if (event !== undefined) yield event
    }
  } catch (thrown) {
    throw connectionError(thrown, client.socket)
  } finally {
    stream.destroy()
  }
}

/** The event; undefined for one of a type that we don't know. Throws what an ERROR event says. */
function asEvent(value: unknown): AnyWatchEvent | undefined {
  if (!isRecord(value) || !isRecord(value['object'])) return undefined
  const { type, object } = value
  if (type === 'ERROR') throw statusObjectError(object, 500)
  if (type === 'ADDED' || type === 'MODIFIED' || type === 'DELETED' || type === 'BOOKMARK') {
    return { type, object }
  }
  return undefined
}

/** The revision that an event brings: its object's, or that of its table's last row. */
function versionOf(object: Record<string, unknown>): string {
  const own = textOf(memberAt(object, 'metadata.resourceVersion'))
  if (own !== '' || !Array.isArray(object['rows'])) return own
  return textOf(memberAt(object['rows'].at(-1), 'object.metadata.resourceVersion'))
}

/** Whether an error says that the revision is forgotten, so that only a new list helps. */
export function isExpired(thrown: unknown): boolean {
  return thrown instanceof StatusError && (thrown.reason === 'Expired' || thrown.httpStatus === 410)
}
