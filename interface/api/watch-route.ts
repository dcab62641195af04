import type { FastifyReply } from 'fastify'
import { failure } from '../../base/errors.ts'
import { parseResourceVersion } from '../../cluster/object-watch.ts'
import type { ObjectChange } from '../../cluster/objects.ts'
import { apiVersionOf, type Kind, type Resource } from '../../resources/kind.ts'
import type { Representation } from './accept.ts'
import {
  type ApiContext,
  type ApiRequest,
  booleanParameter,
  clientSignal,
  integerParameter,
  parameter,
} from './context.ts'
import { type Include, tableOf } from './representation.ts'
import type { Matcher } from './selector.ts'
import { asFailure, failureStatus } from './status.ts'

/** Which objects are watched, and how they are shown. */
export interface WatchView {
  kind: Kind
  namespace: string | undefined
  matches: Matcher | undefined
  representation: Representation
  include: Include
}

interface Watch extends WatchView {
  context: ApiContext
  /** Where it begins; undefined: with all that is there. */
  afterResourceVersion: string | undefined
  bookmarks: boolean
  /** Whether the client wants to be told when all that was there has been sent. */
  markInitial: boolean
  signal: AbortSignal
  raw: FastifyReply['raw']
  /** How far the client has been told. */
  told: string
  /** How far the watch is. */
  reached: string
  columnsSent: boolean
}

/** A client that asked for bookmarks gets one this often, when there is something to tell. */
const bookmarkMs = 60_000
/** A watch that names no end is ended after this; clients begin a new one where it ended. */
const longestMs = 3_600_000

/**
 * Serves a watch (Kubernetes API concepts, "Efficient detection of changes"): one JSON event a
 * line, until the client leaves, the time is over or the server closes.
 * @throws badRequest, tooMany; what goes wrong later is told as an ERROR event
 */
export async function serveWatch(
  context: ApiContext,
  view: WatchView,
  request: ApiRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const { limits, clock, watches } = context
  const { query } = request
  const version = parameter(query, 'resourceVersion')
  if (version !== undefined) parseResourceVersion(version)
  const timeoutSeconds = integerParameter(query, 'timeoutSeconds')
  const markInitial = booleanParameter(query, 'sendInitialEvents')
  const bookmarks = booleanParameter(query, 'allowWatchBookmarks')
  if (watches.size >= limits.watches) {
    throw failure('tooMany', { limit: limits.watches, what: 'watches' })
  }
  const timeout = new AbortController()
  const signal = AbortSignal.any([clientSignal(context, reply), timeout.signal])
  const isFromNow = version === undefined || version === '0' || markInitial
  const watch: Watch = {
    ...view,
    context,
    afterResourceVersion: isFromNow ? undefined : version,
    bookmarks,
    markInitial,
    signal,
    raw: reply.raw,
    told: version ?? '',
    reached: version ?? '',
    columnsSent: false,
  }
  const endsMs = Math.min(longestMs, (timeoutSeconds || Infinity) * 1000)
  const timer = clock.setTimer(endsMs, () => timeout.abort())
  watches.add(watch)
  reply.hijack()
  try {
    reply.raw.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'no-store' })
    reply.raw.flushHeaders()
    await run(watch)
  } finally {
    timer.cancel()
    watches.delete(watch)
    reply.raw.end()
  }
  return reply
}

async function run(watch: Watch): Promise<void> {
  const { context, kind, namespace, signal } = watch
  const place = namespace === undefined ? {} : { namespace }
  const stopBookmarks = startBookmarks(watch)
  try {
    watch.afterResourceVersion ??= await sendPresent(watch)
    const { afterResourceVersion } = watch
    const selection = { ...place, afterResourceVersion, signal }
    for await (const change of context.objects.watch(kind, selection)) {
      if (change.type === 'BOOKMARK') watch.reached = change.resourceVersion
      else await sendChange(watch, change)
    }
    sendBookmark(watch)
  } catch (thrown) {
    if (signal.aborted) return
    const error = asFailure(thrown, context.log, context.limits.requestBodyBytes)
    await write(watch, { type: 'ERROR', object: failureStatus(error) })
  } finally {
    stopBookmarks()
  }
}

/** Sends what is there as additions; returns the revision from which to go on. */
async function sendPresent(watch: Watch): Promise<string> {
  const { context, kind, namespace, matches } = watch
  let token: string | undefined
  let resourceVersion = ''
  do {
    const list = await context.objects.list(kind, {
      limit: context.limits.listPage,
      ...(namespace === undefined ? {} : { namespace }),
      ...(matches === undefined ? {} : { matches }),
      ...(token === undefined ? {} : { continue: token }),
    })
    resourceVersion = list.resourceVersion
    for (const object of list.items) await send(watch, 'ADDED', object)
    token = list.continue
  } while (token !== undefined && !watch.signal.aborted)
  watch.reached = resourceVersion
  if (watch.markInitial) sendBookmark(watch, { 'k8s.io/initial-events-end': 'true' })
  return resourceVersion
}

/** A selection sees an object come and go when only its labels change. */
async function sendChange(
  watch: Watch,
  change: Exclude<ObjectChange<Resource>, { type: 'BOOKMARK' }>,
): Promise<void> {
  const matches = watch.matches ?? (() => true)
  if (change.type !== 'MODIFIED') {
    if (matches(change.object)) await send(watch, change.type, change.object)
    return
  }
  const { object, previous } = change
  const [is, was] = [matches(object), matches(previous)]
  if (is) await send(watch, was ? 'MODIFIED' : 'ADDED', object)
  else if (was) {
    // What is told gone is shown as it was last selected, with the revision at which it went.
    const { resourceVersion } = object.metadata
    const metadata = { ...previous.metadata, resourceVersion }
    await send(watch, 'DELETED', { ...previous, metadata } as Resource)
  }
}

async function send(watch: Watch, type: string, object: Resource): Promise<void> {
  const { kind, context, include } = watch
  const { resourceVersion = '' } = object.metadata
  watch.told = resourceVersion
  if (watch.representation === 'object') return write(watch, { type, object })
  const options = { include, nowMs: context.clock.wallMs() }
  const table = tableOf(kind, [object], { resourceVersion }, options)
  if (watch.columnsSent) table.columnDefinitions = null
  watch.columnsSent = true
  return write(watch, { type, object: table })
}

async function write(watch: Watch, event: object): Promise<void> {
  const { raw, signal } = watch
  if (signal.aborted || raw.destroyed) return
  if (raw.write(`${JSON.stringify(event)}\n`)) return
  await new Promise<void>(resolve => {
    const done = () => {
      raw.off('drain', done)
      raw.off('close', done)
      resolve()
    }
    raw.on('drain', done)
    raw.on('close', done)
  })
}

/** Tells how far the watch is, when the client wants that and does not know it yet. */
function sendBookmark(watch: Watch, annotations?: Record<string, string>): void {
  const { kind, raw } = watch
  const isNews = annotations !== undefined || isLater(watch.reached, watch.told)
  if (!watch.bookmarks || !isNews || raw.destroyed || raw.writableNeedDrain) return
  watch.told = watch.reached
  const metadata = { resourceVersion: watch.reached, creationTimestamp: null, annotations }
  const object =
    watch.representation === 'object'
      ? { kind: kind.kind, apiVersion: apiVersionOf(kind), metadata }
      : { kind: 'Table', apiVersion: 'meta.k8s.io/v1', metadata, columnDefinitions: null, rows: [] }
  raw.write(`${JSON.stringify({ type: 'BOOKMARK', object })}\n`)
}

const isLater = (version: string, than: string): boolean => Number(version) > Number(than)

function startBookmarks(watch: Watch): () => void {
  const { clock } = watch.context
  const tick = () => {
    sendBookmark(watch)
    timer = clock.setTimer(bookmarkMs, tick)
  }
  let timer = clock.setTimer(bookmarkMs, tick)
  return () => timer.cancel()
}
