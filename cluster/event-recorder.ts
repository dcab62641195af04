import { type Clock, timestamp } from '../base/clock.ts'
import type { Limits } from '../base/limits.ts'
import { type Log, messageOf } from '../base/log.ts'
import { type Random, randomSuffix } from '../base/random.ts'
import { type Event, eventKind } from '../resources/event.ts'
import type { Resource } from '../resources/kind.ts'
import { defaultNamespace } from '../resources/namespace.ts'
import type { Objects } from './objects.ts'

/** Who records. */
export interface EventRecorderInit {
  /** The part of macfleet that speaks, for example `macfleetd`. */
  component: string
  host: string
  /** The same thing said again within this time is counted, not written anew. */
  windowMs: number
}

/** What a recorder needs. */
export interface EventRecorderComponents {
  objects: Objects
  clock: Clock
  random: Random
  log: Log
  limits: Pick<Limits, 'eventsPerNamespace' | 'eventsWaiting' | 'eventsRemembered'>
}

/** What is said of an object. */
export interface EventContent {
  type: 'Normal' | 'Warning'
  /** One word in CamelCase. */
  reason: string
  /** A sentence. */
  message: string
}

/** Tells users what happened to their objects. Never fails and never makes its caller wait. */
export interface EventRecorder {
  /**
   * Records that something happened to an object. What does not fit the queue is dropped.
   */
  record(object: Pick<Resource, 'apiVersion' | 'kind' | 'metadata'>, said: EventContent): void
  /** Resolves when everything recorded until now has been written or given up. */
  flush(): Promise<void>
}

interface Pending {
  key: string
  event: Event
  times: number
}

interface Remembered {
  name: string
  lastMs: number
}

const longestMessage = 4096
const longestReason = 128
/** Room is made after so many events, as a share of those that are kept: each time all are listed. */
const looksPerLimit = 50

/** Makes a recorder; its queue is written by one loop that ends when the queue is empty. */
export function createEventRecorder(
  init: EventRecorderInit,
  components: EventRecorderComponents,
): EventRecorder {
  const { clock, random, limits, log } = components
  /** By what they say; a Map keeps the order of insertion, which is the order of writing. */
  const waiting = new Map<string, Pending>()
  const remembered = new Map<string, Remembered>()
  /** By namespace: events written since room was last made. */
  const written = new Map<string, number>()
  let writing: Promise<void> | undefined

  const writeAll = async (): Promise<void> => {
    for (const [key, pending] of waiting) {
      waiting.delete(key)
      try {
        if (await writeEvent(components, init, remembered, pending)) {
          await makeRoom(components, written, pending.event.metadata.namespace ?? defaultNamespace)
        }
      } catch (error) {
        const { namespace } = pending.event.metadata
        log.warn({ namespace, error: messageOf(error) }, 'an event could not be written')
      }
    }
    writing = undefined
  }

  return {
    record(object, said) {
      const event = makeEvent(init, { clock, random }, object, said)
      const { involvedObject } = event
      const { kind, namespace, name, uid } = involvedObject
      const key = JSON.stringify([
        kind,
        namespace,
        name,
        uid,
        said.type,
        event.reason,
        event.message,
      ])
      const same = waiting.get(key)
      if (same !== undefined) {
        same.times++
        same.event.lastTimestamp = event.lastTimestamp
        return
      }
      if (waiting.size >= limits.eventsWaiting) {
        log.warn(
          { reason: said.reason, limit: limits.eventsWaiting },
          'too many events wait; one was dropped',
        )
        return
      }
      waiting.set(key, { key, event, times: 1 })
      writing ??= Promise.resolve().then(writeAll)
    },
    async flush() {
      while (writing !== undefined) await writing
    },
  }
}

function makeEvent(
  init: EventRecorderInit,
  components: { clock: Clock; random: Random },
  object: Pick<Resource, 'apiVersion' | 'kind' | 'metadata'>,
  said: EventContent,
): Event {
  const { name, uid, resourceVersion } = object.metadata
  // An object of the whole fleet has its events in the default namespace, as in Kubernetes.
  const namespace = object.metadata.namespace ?? defaultNamespace
  const time = timestamp(components.clock)
  const suffix = randomSuffix(components.random, 12)
  return {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { name: `${name.slice(0, 50).replace(/-+$/, '')}-${suffix}`, namespace },
    involvedObject: {
      apiVersion: object.apiVersion,
      kind: object.kind,
      ...(object.metadata.namespace === undefined ? {} : { namespace }),
      name,
      ...(uid === undefined ? {} : { uid }),
      ...(resourceVersion === undefined ? {} : { resourceVersion }),
    },
    type: said.type,
    reason: said.reason.slice(0, longestReason),
    message: said.message.slice(0, longestMessage),
    count: 1,
    firstTimestamp: time,
    lastTimestamp: time,
    source: { component: init.component, host: init.host },
  }
}

/**
 * Counts it up when it was said shortly before, else writes it.
 * @returns whether there is one more
 */
async function writeEvent(
  components: EventRecorderComponents,
  init: EventRecorderInit,
  remembered: Map<string, Remembered>,
  pending: Pending,
): Promise<boolean> {
  const { objects, clock, limits } = components
  const { key, event, times } = pending
  const nowMs = clock.monotonicMs()
  const before = remembered.get(key)
  remembered.delete(key)
  if (before !== undefined && nowMs - before.lastMs <= init.windowMs) {
    const reference = { name: before.name, namespace: event.metadata.namespace }
    const counted = await objects.change(eventKind, reference, written => ({
      ...written,
      count: (written.count ?? 1) + times,
      lastTimestamp: event.lastTimestamp,
    }))
    if (counted !== undefined) {
      remember(remembered, key, { name: before.name, lastMs: nowMs }, limits.eventsRemembered)
      return false
    }
  }
  const created = await objects.create(eventKind, { ...event, count: times })
  remember(remembered, key, { name: created.metadata.name, lastMs: nowMs }, limits.eventsRemembered)
  return true
}

function remember(
  remembered: Map<string, Remembered>,
  key: string,
  value: Remembered,
  limit: number,
): void {
  remembered.set(key, value)
  for (const oldest of remembered.keys()) {
    if (remembered.size <= limit) return
    remembered.delete(oldest)
  }
}

/**
 * Deletes the events that happened longest ago, until the namespace has no more than it may. Now
 * and then only, so a namespace may have a few more for a while.
 */
async function makeRoom(
  components: EventRecorderComponents,
  written: Map<string, number>,
  namespace: string,
): Promise<void> {
  const { objects, limits } = components
  const since = (written.get(namespace) ?? Number.POSITIVE_INFINITY) + 1
  if (since < limits.eventsPerNamespace / looksPerLimit) {
    written.set(namespace, since)
    return
  }
  if (written.size >= limits.eventsRemembered) written.clear()
  written.set(namespace, 0)
  const { items } = await objects.list(eventKind, { namespace })
  const excess = items.length - limits.eventsPerNamespace
  if (excess <= 0) return
  const age = (event: Event) => event.lastTimestamp ?? event.metadata.creationTimestamp ?? ''
  const order = (event: Event) => Number(event.metadata.resourceVersion)
  const oldest = items.sort((a, b) => age(a).localeCompare(age(b)) || order(a) - order(b))
  for (const event of oldest.slice(0, excess)) {
    const { name, uid } = event.metadata
    await objects.remove(eventKind, { name, namespace }, uid === undefined ? {} : { uid })
  }
}
