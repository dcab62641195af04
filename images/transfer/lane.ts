import { backoffMs } from '../../base/backoff.ts'
import type { Clock } from '../../base/clock.ts'
import { failure, isFailure, messageOf } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { type Random, randomInteger } from '../../base/random.ts'
import type { LayerView } from '../composition.ts'
import type { ImageSource, LayerSource, SourceDescription } from '../sources/source.ts'
import { emptyBits, hasBit, putBit } from './bitmap.ts'
import type { ChunkNumbers } from './chunk-numbers.ts'
import { createWindow, type Window } from './window.ts'

/** What became of a chunk that was handed on. */
export type Verdict = 'stored' | 'rotten' | 'unwanted'

/** One source of an image that is being filled. */
export interface LaneInit {
  id: string
  description: SourceDescription
  /** Digests and indexes of the layers that it is asked for, by place; base first. */
  layers: readonly { digest: string; view: LayerView }[]
  numbers: ChunkNumbers
  /** Whether something of a layer is missing. */
  wantsLayer(layer: number): boolean
  /** A chunk came, not verified. */
  onChunk(number: number, bytes: Buffer): Promise<Verdict>
  /** Requests for these are over, whatever became of them. */
  onEnded(numbers: readonly number[]): void
  onHeld(held: Uint8Array | undefined): void
  /** It said that it has it, and did not bring it. */
  onMissed(number: number): void
  /** It became usable or unusable, or there is room for more. */
  onChange(): void
  /** A peer served what is not what it should be: it is never asked again. */
  onRotten(): void
}

/** What a lane needs. */
export interface LaneComponents {
  clock: Clock
  random: Random
  limits: Pick<Limits, 'sourceBytesInFlight' | 'sourceRequestsAtOnce'>
  open(description: SourceDescription): Promise<ImageSource>
}

/** A source as it is used: opened, asked, left alone for a while when it fails. */
export interface Lane {
  readonly id: string
  readonly description: SourceDescription
  readonly window: Window
  isUsable(): boolean
  /** Why it is not usable, for the user. */
  trouble(): string | undefined
  /** Bytes, and requests, that are asked for and did not come. */
  bytesInFlight(): number
  requestsInFlight(): number
  /** Whether it has everything, and when what it has last grew. */
  hasAll(): boolean
  lastGrowthMs(): number
  /** Does what is due: opens, tries again, asks what the source has. @param pollMs how often */
  tick(pollMs: number): void
  /** Asks for chunks of one image; never rejects. @param aimMs how long it should take */
  ask(numbers: readonly number[], aimMs: number): void
  /** It came from elsewhere. */
  forget(number: number): void
  /** Does not wait any longer before it tries again. */
  retryNow(): void
  close(): Promise<void>
}

const retry = { firstMs: 500, mostMs: 30_000 }
/** A source that lies to us about content and can not be left for good. */
const rottenOriginMs = 5_000
/** No chunk for so long: the request is given up. */
const idleMs = 20_000
const openMs = 15_000
/** A peer that has nothing new is asked less often, and after so many times seldom. */
const mostQuietPolls = 60
const slowPollMs = 5_000

interface Call {
  pending: Set<number>
  abort: AbortController
}

interface LaneState {
  init: LaneInit
  components: LaneComponents
  window: Window
  state: 'waiting' | 'opening' | 'usable' | 'ended'
  atMs: number
  failures: number
  trouble: string | undefined
  source: ImageSource | undefined
  layers: Map<number, LayerSource>
  held: Uint8Array
  heldAll: boolean
  grewAtMs: number
  polling: boolean
  quietPolls: number
  polledAtMs: number
  calls: Set<Call>
  bytesInFlight: number
  closing: AbortController
  work: Set<Promise<void>>
}

/** Makes a lane; the first `tick` opens the source. */
export function createLane(init: LaneInit, components: LaneComponents): Lane {
  const lane = createState(init, components)
  return {
    id: init.id,
    description: init.description,
    window: lane.window,
    isUsable: () => lane.state === 'usable',
    trouble: () => (lane.state === 'usable' ? undefined : lane.trouble),
    bytesInFlight: () => lane.bytesInFlight,
    requestsInFlight: () => lane.calls.size,
    hasAll: () => lane.heldAll,
    lastGrowthMs: () => lane.grewAtMs,
    tick(pollMs) {
      const nowMs = components.clock.monotonicMs()
      if (lane.state === 'waiting' && nowMs >= lane.atMs) run(lane, open(lane))
      if (lane.state !== 'usable' || lane.polling || lane.heldAll) return
      if (init.description.kind !== 'peer') return
      const { quietPolls } = lane
      const quietMs = Math.min(pollMs * 3, pollMs * 1.2 ** quietPolls)
      const waitMs = quietPolls > mostQuietPolls ? slowPollMs : quietMs
      if (nowMs - lane.polledAtMs >= waitMs) run(lane, poll(lane))
    },
    ask(numbers, aimMs) {
      for (const [layer, group] of byLayer(init.numbers, numbers)) {
        run(lane, fetchChunks(lane, layer, group, aimMs))
      }
    },
    forget(number) {
      for (const call of lane.calls) {
        if (!call.pending.has(number)) continue
        drop(lane, call, number)
        if (call.pending.size === 0) call.abort.abort(failure('internal', { detail: 'not needed' }))
      }
    },
    retryNow() {
      if (lane.state === 'waiting') lane.atMs = 0
    },
    async close() {
      lane.state = 'ended'
      lane.closing.abort(failure('sourceFailed', { source: nameOf(lane), detail: 'it is closed' }))
      await Promise.all(lane.work)
      await lane.source?.close().catch(() => {})
    },
  }
}

function createState(init: LaneInit, components: LaneComponents): LaneState {
  return {
    init,
    components,
    window: createWindow(components.limits.sourceBytesInFlight),
    state: 'waiting',
    atMs: 0,
    failures: 0,
    trouble: undefined,
    source: undefined,
    layers: new Map(),
    held: emptyBits(init.numbers.count),
    heldAll: false,
    grewAtMs: components.clock.monotonicMs(),
    polling: false,
    quietPolls: 0,
    polledAtMs: 0,
    calls: new Set(),
    bytesInFlight: 0,
    closing: new AbortController(),
    work: new Set(),
  }
}

function nameOf(lane: LaneState): string {
  return lane.init.description.name
}

/** Nothing that a lane does rejects: it ends in a state. */
function run(lane: LaneState, work: Promise<void>): void {
  lane.work.add(work)
  void work.finally(() => lane.work.delete(work))
}

function byLayer(numbers: ChunkNumbers, chosen: readonly number[]): Map<number, number[]> {
  const groups = new Map<number, number[]>()
  for (const number of chosen) {
    const { layer } = numbers.nameOf(number)
    const group = groups.get(layer)
    if (group === undefined) groups.set(layer, [number])
    else group.push(number)
  }
  return groups
}

async function open(lane: LaneState): Promise<void> {
  lane.state = 'opening'
  try {
    await withDeadline(lane, openMs, async signal => {
      lane.source ??= await lane.components.open(lane.init.description)
      await openLayers(lane, lane.source, signal)
      await askHeld(lane, signal)
    })
    if (lane.closing.signal.aborted) return
    lane.state = 'usable'
    lane.init.onChange()
  } catch (error) {
    fail(lane, error)
  }
}

async function poll(lane: LaneState): Promise<void> {
  lane.polling = true
  try {
    await withDeadline(lane, openMs, async signal => {
      if (lane.source !== undefined) await openLayers(lane, lane.source, signal)
      await askHeld(lane, signal)
    })
  } catch (error) {
    fail(lane, error)
  } finally {
    lane.polling = false
    lane.polledAtMs = lane.components.clock.monotonicMs()
  }
}

/** A peer that has nothing of a layer may have it later; an origin has failed then. */
async function openLayers(lane: LaneState, source: ImageSource, signal: AbortSignal) {
  for (const [layer, { digest, view }] of lane.init.layers.entries()) {
    if (lane.layers.has(layer) || !lane.init.wantsLayer(layer)) continue
    try {
      lane.layers.set(layer, await source.openLayer(digest, view.index, signal))
    } catch (error) {
      if (!isFailure(error, 'notFound') || lane.init.description.kind !== 'peer') throw error
    }
  }
}

/** Asks what it has of the layers that are open. */
async function askHeld(lane: LaneState, signal: AbortSignal): Promise<void> {
  const { numbers, layers } = lane.init
  const held = emptyBits(numbers.count)
  let isAll = true
  for (const [layer, { view }] of layers.entries()) {
    const open = lane.layers.get(layer)
    // What nobody wants is not asked about.
    if (open === undefined) {
      isAll &&= !lane.init.wantsLayer(layer)
      continue
    }
    const bits = await heldOf(lane, open, signal)
    const first = numbers.firsts[layer] ?? 0
    for (let chunk = 0; chunk < view.index.chunks.length; chunk++) {
      if (bits === undefined || hasBit(bits, chunk)) putBit(held, first + chunk, true)
      else isAll = false
    }
  }
  const grew = held.some((byte, at) => (byte & ~(lane.held[at] ?? 0)) !== 0)
  lane.quietPolls = grew ? 0 : lane.quietPolls + 1
  if (grew) lane.grewAtMs = lane.components.clock.monotonicMs()
  lane.held = held
  lane.heldAll = isAll
  lane.init.onHeld(held)
  if (grew) lane.init.onChange()
}

/** A peer that knows nothing of a layer may know it later. */
async function heldOf(lane: LaneState, layer: LayerSource, signal: AbortSignal) {
  try {
    return await layer.held(signal)
  } catch (error) {
    if (!isFailure(error, 'notFound') || lane.init.description.kind !== 'peer') throw error
    return emptyBits(0)
  }
}

async function fetchChunks(
  lane: LaneState,
  layer: number,
  numbers: number[],
  aimMs: number,
): Promise<void> {
  const { clock } = lane.components
  const call: Call = { pending: new Set(numbers), abort: new AbortController() }
  lane.calls.add(call)
  for (const number of numbers) lane.bytesInFlight += lane.init.numbers.bytesOf(number)
  const beganMs = clock.monotonicMs()
  try {
    const brought = await receive(lane, layer, call, numbers)
    const left = [...call.pending]
    for (const number of left) lane.init.onMissed(number)
    if (brought > 0) lane.window.took(clock.monotonicMs() - beganMs, aimMs)
    else if (left.length > 0) {
      const detail = `it brought none of ${left.length} chunks`
      throw failure('sourceFailed', { source: nameOf(lane), detail })
    }
  } catch (error) {
    // All of it came from elsewhere: that is no failure.
    if (call.pending.size > 0) fail(lane, error)
  } finally {
    lane.calls.delete(call)
    for (const number of [...call.pending]) drop(lane, call, number)
    if (!lane.closing.signal.aborted) lane.init.onChange()
  }
}

/** @returns how many came */
async function receive(
  lane: LaneState,
  layer: number,
  call: Call,
  numbers: readonly number[],
): Promise<number> {
  const open = lane.layers.get(layer)
  const detail = `it has no layer ${layer}`
  if (open === undefined) throw failure('sourceFailed', { source: nameOf(lane), detail })
  const first = lane.init.numbers.firsts[layer] ?? 0
  const chunks = numbers.map(number => number - first)
  let brought = 0
  await withDeadline(
    lane,
    idleMs,
    async (signal, extend) => {
      for await (const chunk of open.fetch(chunks, signal)) {
        if (signal.aborted) return
        extend()
        const number = first + chunk.number
        if (!call.pending.has(number)) {
          if (numbers.includes(number)) continue
          const detail = 'it sends what it was not asked for'
          throw failure('sourceFailed', { source: nameOf(lane), detail })
        }
        const verdict = await lane.init.onChunk(number, chunk.bytes)
        chunk.release?.()
        if (verdict === 'rotten') return judgeRotten(lane, number)
        drop(lane, call, number)
        brought++
        lane.failures = 0
        extend()
      }
    },
    call.abort.signal,
  )
  return brought
}

/** A peer is never asked again; there may be but one registry: it is left alone for a while. */
function judgeRotten(lane: LaneState, number: number): never {
  const detail = 'it serves content that is not what its digest names'
  lane.init.onMissed(number)
  if (lane.init.description.kind === 'peer') {
    lane.state = 'ended'
    lane.trouble = `${nameOf(lane)}: ${detail}`
    lane.closing.abort(failure('sourceFailed', { source: nameOf(lane), detail }))
    lane.init.onRotten()
  }
  throw failure('chunkInvalid', { detail })
}

function drop(lane: LaneState, call: Call, number: number): void {
  if (!call.pending.delete(number)) return
  lane.bytesInFlight -= lane.init.numbers.bytesOf(number)
  lane.init.onEnded([number])
}

function fail(lane: LaneState, error: unknown): void {
  // Requests that fail together are one failure.
  if (lane.state === 'ended' || lane.state === 'waiting') return
  const { clock, random } = lane.components
  const isNamed = isFailure(error, 'sourceFailed')
  lane.trouble = `${isNamed ? '' : `${nameOf(lane)}: `}${messageOf(error)}`.slice(0, 300)
  lane.window.reset()
  lane.failures++
  const least = isFailure(error, 'chunkInvalid') ? rottenOriginMs : 0
  const waitMs = Math.max(least, backoffMs(retry, lane.failures))
  lane.atMs = clock.monotonicMs() + waitMs * (0.75 + randomInteger(random, 500) / 1_000)
  lane.state = 'waiting'
  lane.init.onChange()
}

/** Work that is aborted when it stands still for so long, or when the lane or the call ends. */
async function withDeadline(
  lane: LaneState,
  waitMs: number,
  work: (signal: AbortSignal, extend: () => void) => Promise<void>,
  outer?: AbortSignal,
): Promise<void> {
  const { clock } = lane.components
  const late = new AbortController()
  const source = nameOf(lane)
  const onLate = () =>
    late.abort(failure('sourceFailed', { source, detail: `nothing came for ${waitMs / 1000} s` }))
  let timer = clock.setTimer(waitMs, onLate)
  const extend = () => {
    timer.cancel()
    timer = clock.setTimer(waitMs, onLate)
  }
  const signals = [late.signal, lane.closing.signal, ...(outer ? [outer] : [])]
  const signal = AbortSignal.any(signals)
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  const onAbort = () => reject(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  aborted.catch(() => {})
  if (signal.aborted) onAbort()
  try {
    // A source that does not heed its signal keeps nobody waiting.
    await Promise.race([work(signal, extend), aborted])
  } finally {
    timer.cancel()
    signal.removeEventListener('abort', onAbort)
  }
}
