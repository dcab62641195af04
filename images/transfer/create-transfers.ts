import { Worker } from 'node:worker_threads'
import { type Clock, type Timer, withTimeout } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import type { Registry } from '../../base/metrics.ts'
import { createFillingHandle, type FillingHandle } from './filling-handle.ts'
import type { FromTransfer, ThreadInit, ToTransfer } from './messages.ts'
import { createTransferMetrics, type TransferMetrics } from './transfer-metrics.ts'
import type { Transfers, TransferTls } from './transfers.ts'

/** How the filling of images is set up. */
export interface TransfersInit {
  /** This host's name, the same that other hosts have in their descriptions of this peer. */
  host: string
  limits: Limits
  /** Opens sources (see open-source.ts, which it is unless a test has its own). */
  sourcesModule?: URL
}

/** What it needs. */
export interface TransfersComponents {
  clock: Clock
  log: Log
  metrics?: Registry
  /** A host served what it should not have; it is not asked again. */
  onRotten?(host: string): void
}

interface Context {
  init: TransfersInit
  components: TransfersComponents
  metrics: TransferMetrics
  handles: Map<number, FillingHandle>
  rotten: Set<string>
  tls: TransferTls | undefined
  worker: Worker | undefined
  deaths: number
  restart: Timer | undefined
  idle: Timer | undefined
  startedAtMs: number
  closing: PromiseWithResolvers<void> | undefined
}

/** A thread that lived this long has not died in a row. */
const steadyMs = 60_000
const restartMs = 200
/** Without work the thread ends: it takes memory. */
const idleMs = 30_000
const closeMs = 10_000

/** The thread is there while images are filled. */
export function createTransfers(init: TransfersInit, components: TransfersComponents): Transfers {
  const handles = new Map<number, FillingHandle>()
  const context: Context = {
    ...{ init, components, handles },
    metrics: createTransferMetrics(components.metrics, () => handles.size),
    rotten: new Set(),
    tls: undefined,
    worker: undefined,
    deaths: 0,
    restart: undefined,
    idle: undefined,
    startedAtMs: 0,
    closing: undefined,
  }
  let nextNumber = 1
  return {
    fill(request) {
      const { digest } = request
      if (context.closing !== undefined) {
        throw failure('imageFillEnded', { digest, detail: 'the daemon ends' })
      }
      const limit = init.limits.imageFillings
      if (handles.size >= limit) throw failure('tooMany', { limit, what: 'images on their way' })
      const number = nextNumber++
      const handle = createFillingHandle(
        {
          ...{ number, request },
          send: message => send(context, message),
          onGone: () => forget(context, number),
        },
        { ...components, metrics: context.metrics },
      )
      handles.set(number, handle)
      context.idle?.cancel()
      if (context.worker === undefined && context.restart === undefined) startThread(context)
      handle.begin(false)
      return handle.filling
    },
    warm() {
      // With work it is there, or about to be again.
      const isBusy = handles.size > 0 || context.restart !== undefined
      if (context.closing !== undefined || isBusy) return
      if (context.worker === undefined) startThread(context)
      endWhenIdle(context)
    },
    setTls(tls) {
      context.tls = tls
      send(context, { type: 'tls', tls })
    },
    close: () => close(context),
  }
}

/** While there is no thread, nothing is lost: a new one is told everything. */
function send({ worker }: Context, message: ToTransfer): void {
  worker?.postMessage(message)
}

function startThread(context: Context): void {
  const { init, components, rotten, tls } = context
  const sourcesModule = (init.sourcesModule ?? new URL('./open-source.ts', import.meta.url)).href
  const { host, limits } = init
  const data: ThreadInit = { ...{ host, limits, sourcesModule, tls }, rotten: [...rotten] }
  const worker = new Worker(new URL('./transfer-thread.ts', import.meta.url), {
    workerData: data,
    // No arguments of ours: under a test runner they would load its hooks into the thread.
    execArgv: [],
  })
  context.worker = worker
  context.startedAtMs = components.clock.monotonicMs()
  worker.on('message', (message: FromTransfer) => hear(context, message))
  worker.on('error', error => {
    components.log.error({ error: messageOf(error) }, 'the thread that fills images failed')
  })
  worker.on('exit', () => {
    if (context.worker === worker) onExit(context)
  })
}

function hear(context: Context, message: FromTransfer): void {
  const { components, rotten, init } = context
  if (message.type === 'log') components.log[message.level](message.fields, message.message)
  else if (message.type === 'closed') context.closing?.resolve()
  else if (message.type === 'rotten') {
    const { host } = message
    components.log.warn({ host }, 'a host served content that is not what its digest names')
    if (rotten.size < init.limits.rottenSources) rotten.add(host)
    context.metrics.sourceWasRotten()
    components.onRotten?.(host)
  } else context.handles.get(message.fill)?.hear(message)
}

/** It died: what it was at is taken up by another, a few times. */
function onExit(context: Context): void {
  const { components, init, handles } = context
  context.worker = undefined
  context.closing?.resolve()
  if (context.closing !== undefined || handles.size === 0) return
  context.metrics.threadDied()
  const livedMs = components.clock.monotonicMs() - context.startedAtMs
  context.deaths = livedMs > steadyMs ? 1 : context.deaths + 1
  if (context.deaths > init.limits.transferRestarts) {
    context.deaths = 0
    const detail = 'the thread that fills images dies again and again'
    for (const handle of handles.values()) handle.fail(failure('internal', { detail }))
    return
  }
  context.restart = components.clock.setTimer(restartMs * context.deaths, () => {
    context.restart = undefined
    startThread(context)
    for (const handle of handles.values()) handle.begin(true)
  })
}

function forget(context: Context, number: number): void {
  context.handles.delete(number)
  if (context.handles.size === 0 && context.closing === undefined) endWhenIdle(context)
}

function endWhenIdle(context: Context): void {
  context.idle?.cancel()
  context.idle = context.components.clock.setTimer(idleMs, () => {
    const { worker } = context
    context.worker = undefined
    void worker?.terminate()
  })
}

async function close(context: Context): Promise<void> {
  if (context.closing !== undefined) return context.closing.promise
  const closing = Promise.withResolvers<void>()
  context.closing = closing
  context.restart?.cancel()
  context.idle?.cancel()
  const { worker, components } = context
  if (worker === undefined) closing.resolve()
  else worker.postMessage({ type: 'close' } satisfies ToTransfer)
  const late = () =>
    failure('timeout', { what: 'ending the filling of images', timeoutMs: closeMs })
  await withTimeout(components.clock, closeMs, closing.promise, late).catch(error => {
    components.log.warn({ error: messageOf(error) }, 'images on their way were left as they are')
  })
  await worker?.terminate()
  for (const handle of [...context.handles.values()]) {
    const { digest } = handle.filling
    handle.fail(failure('imageFillEnded', { digest, detail: 'the daemon ends' }))
  }
}
