import type { Timer } from '../../base/clock.ts'
import { failure, isFailure, messageOf } from '../../base/errors.ts'
import type { ReadableDisk } from '../nbd/readable-disk.ts'
import type { ChunkName, PartialDisk } from '../partial/partial-disk.ts'
import type { SourceDescription } from '../sources/source.ts'
import { type Choice, createChoice } from './choice.ts'
import { type ChunkNumbers, numberChunks } from './chunk-numbers.ts'
import { type Crew, createCrew } from './crew.ts'
import type { FillComponents } from './fill-components.ts'
import { createFillingDisk, type FillingDisk } from './filling-disk.ts'
import type { Verdict } from './lane.ts'
import { createMeter, type Meter } from './meter.ts'
import type { FillProgress, FillRequest } from './transfers.ts'

/** One image that is being filled, in the thread. */
export interface FillInit {
  digest: string
  /** This host's name, as the descriptions of peers have it on other hosts. */
  host: string
  disk: PartialDisk
  /** Digests of the layers, base first. */
  layerDigests: readonly string[]
  want: FillRequest['want']
  sources: readonly SourceDescription[]
}

/** Who is told. */
export interface FillEvents {
  onProgress(progress: FillProgress): void
  onStored(names: readonly ChunkName[]): void
  /** All is here and durable. */
  onDone(): void
  /** It can not go on; what is durable stays. */
  onFailed(error: unknown): void
}

/** A filling in the thread. */
export interface Fill {
  /** What guests read; served as long as somebody `holds` it. */
  readonly disk: ReadableDisk
  /** With guests behind it a full disk makes it wait, where else it would fail. */
  hold(): () => void
  setSources(sources: readonly SourceDescription[]): void
  setWant(want: FillRequest['want']): void
  progress(): FillProgress
  close(): Promise<void>
}

const tickMs = 100
const flushBytes = 32 * 1024 * 1024
/** Others can have only what is durable: soon, but syncing must not be all that the disk does. */
const flushMs = 200
const mostFlushMs = 2_000
const flushShare = 4
const progressMs = 200
/** How long nothing may come, though it is wanted, before it is said to be stalled. */
const silenceMs = 5_000
const noSourceMs = 1_000
/** A disk that took no bytes is tried again after this. */
const diskRetryMs = 5_000

interface Context {
  init: FillInit
  components: FillComponents
  events: FillEvents
  numbers: ChunkNumbers
  choice: Choice
  crew: Crew
  reading: FillingDisk
  want: FillRequest['want']
  from: FillProgress['from']
  meter: Meter
  holders: number
  /** Put and not durable: when the first was put, and their sum. */
  loose: Set<number>
  looseSinceMs: number
  looseBytes: number
  flushing: Promise<void> | undefined
  flushEveryMs: number
  lastArrivalMs: number
  stalled: string | undefined
  diskTrouble: { message: string; untilMs: number } | undefined
  toldAtMs: number
  told: string
  state: 'filling' | 'done' | 'failed' | 'closed'
  timer: Timer | undefined
}

/** Begins to fill at once. */
export function createFill(init: FillInit, components: FillComponents, events: FillEvents): Fill {
  const context = createContext(init, components, events)
  const { crew } = context
  crew.setSources(init.sources)
  tick(context)
  return {
    disk: context.reading.disk,
    hold() {
      let held = true
      context.holders++
      return () => {
        if (held) context.holders--
        held = false
      }
    },
    setSources(sources) {
      if (context.state === 'filling') crew.setSources(sources)
    },
    setWant(want) {
      context.want = want
      context.lastArrivalMs = components.clock.monotonicMs()
      crew.pump()
    },
    progress: () => progressOf(context),
    async close() {
      if (context.state === 'filling') context.state = 'closed'
      context.timer?.cancel()
      const detail = 'it was stopped'
      context.reading.failAll(failure('imageFillEnded', { digest: init.digest, detail }))
      await crew.close()
      await flushNow(context).catch(() => {})
      await init.disk.close()
    },
  }
}

function createContext(init: FillInit, components: FillComponents, events: FillEvents): Context {
  const numbers = numberChunks(init.disk.layers)
  const isHere = (number: number) => init.disk.has(numbers.nameOf(number))
  const choice = createChoice({ host: init.host, numbers, isHere }, components)
  const { clock, limits } = components
  const reading = createFillingDisk(
    { digest: init.digest, disk: init.disk, numbers, choice, onWanted: () => context.crew.pump() },
    { clock, limits },
  )
  const crew = createCrew(
    {
      numbers,
      choice,
      layers: init.disk.layers.map((view, at) => ({ view, digest: init.layerDigests[at] ?? '' })),
      lastGuestMs: () => reading.lastMissMs(),
      guestsWait: () => reading.isWaiting(),
      wantsAll: () => context.want === 'all',
      isPaused: () => context.state !== 'filling' || context.diskTrouble !== undefined,
      onChunk: (number, bytes, kind) => store(context, number, bytes, kind),
    },
    components,
  )
  const nowMs = clock.monotonicMs()
  const context: Context = {
    ...{ init, components, events, numbers, choice, crew, reading },
    want: init.want,
    from: { peer: 0, registry: 0, library: 0, local: init.disk.presentBytes() },
    meter: createMeter(),
    holders: 0,
    loose: new Set(),
    looseSinceMs: 0,
    looseBytes: 0,
    flushing: undefined,
    flushEveryMs: flushMs,
    lastArrivalMs: nowMs,
    stalled: undefined,
    diskTrouble: undefined,
    toldAtMs: Number.NEGATIVE_INFINITY,
    told: '',
    state: 'filling',
    timer: undefined,
  }
  return context
}

/** Verifies and writes a chunk that came. */
async function store(
  context: Context,
  number: number,
  bytes: Buffer,
  kind: SourceDescription['kind'],
): Promise<Verdict> {
  const { init, numbers, choice, components, reading } = context
  if (context.state !== 'filling') return 'unwanted'
  const name = numbers.nameOf(number)
  if (init.disk.has(name)) return 'stored'
  try {
    await init.disk.put(name, bytes)
  } catch (error) {
    if (isFailure(error, 'chunkInvalid')) return 'rotten'
    onDiskError(context, error)
    return 'unwanted'
  }
  const nowMs = components.clock.monotonicMs()
  const lengthBytes = numbers.bytesOf(number)
  context.from[kind] += lengthBytes
  context.meter.add(lengthBytes, nowMs)
  context.lastArrivalMs = nowMs
  context.stalled = undefined
  choice.arrived(number)
  reading.arrived(number)
  if (context.loose.size === 0) context.looseSinceMs = nowMs
  context.loose.add(number)
  context.looseBytes += lengthBytes
  if (choice.missingCount() === 0 || context.looseBytes >= flushBytes) flush(context)
  return 'stored'
}

function flush(context: Context): void {
  if (context.flushing !== undefined) return
  context.flushing = flushNow(context)
    .catch(error => onDiskError(context, error))
    .finally(() => {
      context.flushing = undefined
      finishIfWhole(context)
    })
}

async function flushNow(context: Context): Promise<void> {
  const numbers = [...context.loose]
  context.loose.clear()
  context.looseBytes = 0
  const { clock } = context.components
  const beganMs = clock.monotonicMs()
  try {
    const names = await context.init.disk.flush()
    const tookMs = clock.monotonicMs() - beganMs
    context.flushEveryMs = Math.min(mostFlushMs, Math.max(flushMs, flushShare * tookMs))
    if (names.length > 0) context.events.onStored(names)
  } catch (error) {
    // Nobody knows what the disk has of them: they are fetched anew.
    for (const number of numbers) {
      if (!context.init.disk.has(context.numbers.nameOf(number))) context.choice.lost(number)
    }
    throw error
  }
}

function finishIfWhole(context: Context): void {
  if (context.state !== 'filling' || context.choice.missingCount() > 0) return
  // What is being synced is not durable yet.
  if (context.flushing !== undefined) return
  if (context.loose.size > 0) {
    flush(context)
    return
  }
  context.state = 'done'
  context.stalled = undefined
  context.timer?.cancel()
  context.events.onProgress(progressOf(context))
  void context.crew.close().then(() => context.events.onDone())
}

/** With guests behind it, it waits for room; else whoever asked for it decides. */
function onDiskError(context: Context, error: unknown): void {
  if (context.state !== 'filling') return
  const { digest } = context.init
  context.components.log.warn({ digest, error: messageOf(error) }, 'an image can not be written')
  if (context.holders > 0) {
    const untilMs = context.components.clock.monotonicMs() + diskRetryMs
    context.diskTrouble = { message: messageOf(error), untilMs }
    return
  }
  context.state = 'failed'
  context.timer?.cancel()
  context.reading.failAll(error)
  void context.crew.close().then(() => context.events.onFailed(error))
}

function tick(context: Context): void {
  if (context.state !== 'filling') return
  const nowMs = context.components.clock.monotonicMs()
  if (context.diskTrouble !== undefined && nowMs >= context.diskTrouble.untilMs) {
    context.diskTrouble = undefined
  }
  if (context.loose.size > 0 && nowMs - context.looseSinceMs >= context.flushEveryMs) flush(context)
  if (context.loose.size === 0) finishIfWhole(context)
  context.crew.tick()
  context.stalled = whyStalled(context, nowMs)
  context.reading.tick(context.stalled)
  if (nowMs - context.toldAtMs >= progressMs) tell(context, nowMs)
  context.timer = context.components.clock.setTimer(tickMs, () => tick(context))
}

function tell(context: Context, nowMs: number): void {
  const progress = progressOf(context)
  const told = JSON.stringify(progress)
  if (told === context.told) return
  context.told = told
  context.toldAtMs = nowMs
  context.events.onProgress(progress)
}

/** Why nothing comes that should, for the user. */
function whyStalled(context: Context, nowMs: number): string | undefined {
  const { choice, crew, reading } = context
  if (context.diskTrouble !== undefined) return context.diskTrouble.message
  if (choice.missingCount() === 0) return undefined
  if (context.want === 'demand' && !reading.isWaiting()) return undefined
  const silentMs = nowMs - Math.max(context.lastArrivalMs, reading.waitingSinceMs())
  if (!crew.hasUsable()) return silentMs > noSourceMs ? crew.troubles() : undefined
  if (crew.requestsInFlight() > 0) return undefined
  if (silentMs <= silenceMs) return undefined
  return crew.troubles()
}

function progressOf(context: Context): FillProgress {
  const { disk } = context.init
  const nowMs = context.components.clock.monotonicMs()
  return {
    doneBytes: disk.presentBytes(),
    totalBytes: disk.wantedBytes,
    bytesPerSecond: Math.round(context.meter.perSecond(nowMs)),
    from: { ...context.from },
    ...(context.stalled === undefined ? {} : { stalled: context.stalled }),
  }
}
