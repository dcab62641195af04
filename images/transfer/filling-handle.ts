import { failure, type MacfleetError } from '../../base/errors.ts'
import { type FromTransfer, hearError, type ToTransfer } from './messages.ts'
import type { TransferMetrics } from './transfer-metrics.ts'
import type { Filling, FillProgress, FillRequest, Serving } from './transfers.ts'

/** A filling on the main thread, whichever thread does its work. */
export interface FillingHandle {
  readonly filling: Filling
  /** Tells the thread all about it. @param again an earlier thread had it and died */
  begin(again: boolean): void
  /** Takes what the thread says of it. */
  hear(message: Extract<FromTransfer, { fill: number }>): void
  /** Nothing more comes of it. */
  fail(error: MacfleetError): void
}

/** Which filling. */
export interface FillingHandleInit {
  number: number
  request: FillRequest
  send(message: ToTransfer): void
  /** It needs no thread any more. */
  onGone(): void
}

interface OpenServing {
  path: string
  owner: { uid: number; gid: number } | undefined
  opened: PromiseWithResolvers<void>
  closed: PromiseWithResolvers<void>
  isClosing: boolean
}

interface State {
  init: FillingHandleInit
  metrics: TransferMetrics
  progress: FillProgress
  /** What threads that died had fetched. */
  before: FillProgress['from'] | undefined
  progressListeners: Set<(progress: FillProgress) => void>
  storedListeners: Set<(stored: { layer: number; chunks: number[] }) => void>
  servings: Map<number, OpenServing>
  nextServing: number
  done: PromiseWithResolvers<void>
  stopped: PromiseWithResolvers<void>
  isStopping: boolean
  isGone: boolean
}

/** Makes the handle; `begin` starts the work. */
export function createFillingHandle(
  init: FillingHandleInit,
  { metrics }: { metrics: TransferMetrics },
): FillingHandle {
  const state: State = {
    ...{ init, metrics },
    progress: {
      ...{ doneBytes: 0, totalBytes: 0, bytesPerSecond: 0 },
      from: { peer: 0, registry: 0, library: 0, local: 0 },
    },
    before: undefined,
    progressListeners: new Set(),
    storedListeners: new Set(),
    servings: new Map(),
    nextServing: 1,
    done: Promise.withResolvers(),
    stopped: Promise.withResolvers(),
    isStopping: false,
    isGone: false,
  }
  // Not everybody waits for both.
  state.done.promise.catch(() => {})
  const { number, request, send } = init
  return {
    filling: createFilling(state),
    begin(again) {
      if (state.isGone) return
      if (state.isStopping) return end(state, stoppedError(state))
      if (again) state.before = state.progress.from
      send({ type: 'fill', fill: number, request, tellAll: again })
      for (const [serving, { path, owner, isClosing, closed }] of state.servings) {
        if (isClosing) {
          closed.resolve()
          state.servings.delete(serving)
          continue
        }
        send({ type: 'serve', fill: number, serving, path, owner })
      }
    },
    hear: message => hear(state, message),
    fail(error) {
      state.done.reject(error)
      end(state, error)
    },
  }
}

function createFilling(state: State): Filling {
  const { number, request, send } = state.init
  return {
    digest: request.digest,
    done: state.done.promise,
    progress: () => state.progress,
    onProgress(listener) {
      state.progressListeners.add(listener)
      return () => state.progressListeners.delete(listener)
    },
    onStored(listener) {
      state.storedListeners.add(listener)
      return () => state.storedListeners.delete(listener)
    },
    setSources(sources) {
      request.sources = sources
      if (!state.isGone) send({ type: 'sources', fill: number, sources })
    },
    setWant(want) {
      request.want = want
      if (!state.isGone) send({ type: 'want', fill: number, want })
    },
    serve: (path, owner) => serve(state, path, owner),
    async stop() {
      state.isStopping = true
      if (!state.isGone) send({ type: 'stop', fill: number })
      state.done.reject(stoppedError(state))
      await state.stopped.promise
    },
  }
}

async function serve(state: State, path: string, owner: OpenServing['owner']): Promise<Serving> {
  const { number, request, send } = state.init
  if (state.isGone) {
    throw failure('imageFillEnded', { digest: request.digest, detail: 'it has ended' })
  }
  const id = state.nextServing++
  const opened = Promise.withResolvers<void>()
  const closed = Promise.withResolvers<void>()
  const serving: OpenServing = { path, owner, opened, closed, isClosing: false }
  state.servings.set(id, serving)
  send({ type: 'serve', fill: number, serving: id, path, owner })
  await opened.promise
  return {
    path,
    async close() {
      if (!state.servings.has(id)) return
      // Should the thread die meanwhile, the next does not begin it again.
      serving.isClosing = true
      send({ type: 'endServing', fill: number, serving: id })
      await closed.promise
    },
  }
}

function hear(state: State, message: Extract<FromTransfer, { fill: number }>): void {
  if (message.type === 'progress') noteProgress(state, message.progress)
  else if (message.type === 'stored') {
    const { layer, chunks } = message
    for (const listener of state.storedListeners) listener({ layer, chunks })
  } else if (message.type === 'done') state.done.resolve()
  else if (message.type === 'failed') state.done.reject(hearError(message.error))
  else if (message.type === 'serving') {
    const opened = state.servings.get(message.serving)?.opened
    if (message.error === undefined) opened?.resolve()
    else {
      opened?.reject(hearError(message.error))
      state.servings.delete(message.serving)
    }
  } else if (message.type === 'servingEnded') {
    state.servings.get(message.serving)?.closed.resolve()
    state.servings.delete(message.serving)
  } else {
    end(state, stoppedError(state))
  }
}

function stoppedError({ init }: State): MacfleetError {
  const { digest } = init.request
  return failure('imageFillEnded', { digest, detail: 'it was stopped' })
}

function noteProgress(state: State, said: FillProgress): void {
  const { before } = state
  const from = before === undefined ? said.from : { ...before }
  if (before !== undefined) {
    for (const kind of ['peer', 'registry', 'library'] as const) from[kind] += said.from[kind]
  }
  const progress = { ...said, from }
  state.metrics.came(state.progress.from, from)
  state.progress = progress
  for (const listener of state.progressListeners) listener(progress)
}

/** The thread has nothing of it open any more. */
function end(state: State, error: MacfleetError): void {
  if (state.isGone) return
  state.isGone = true
  state.done.reject(error)
  for (const { opened, closed } of state.servings.values()) {
    opened.reject(error)
    closed.resolve()
  }
  state.servings.clear()
  state.stopped.resolve()
  state.init.onGone()
}
