import { isDeepStrictEqual } from 'node:util'
import type { LayerView } from '../composition.ts'
import type { SourceDescription } from '../sources/source.ts'
import type { Choice, Room } from './choice.ts'
import type { ChunkNumbers } from './chunk-numbers.ts'
import type { FillComponents } from './fill-components.ts'
import { createLane, type Lane, type Verdict } from './lane.ts'
import { createMeter, type Meter } from './meter.ts'

/** All sources of one image, and who of them is asked for what. */
export interface Crew {
  setSources(sources: readonly SourceDescription[]): void
  /** Asks whoever has room. */
  pump(): void
  /** Does what is due by time, then asks. */
  tick(): void
  hasUsable(): boolean
  requestsInFlight(): number
  /** What is wrong with them, for the user. */
  troubles(): string
  close(): Promise<void>
}

/** What a crew works for. */
export interface CrewInit {
  numbers: ChunkNumbers
  choice: Choice
  layers: readonly { digest: string; view: LayerView }[]
  /** When a guest last had to wait, and whether one does. */
  lastGuestMs(): number
  guestsWait(): boolean
  wantsAll(): boolean
  isPaused(): boolean
  onChunk(number: number, bytes: Buffer, kind: SourceDescription['kind']): Promise<Verdict>
}

interface Context {
  init: CrewInit
  components: FillComponents
  lanes: Map<string, Lane>
  /** When each host was first heard of. */
  knownSinceMs: Map<string, number>
  sharers: string
  peerMeter: Meter
  originMeter: Meter
  originBestPerSecond: number
  peersSinceMs: number | undefined
  relief: boolean
  /** When something was last asked for that no guest waits for. */
  backgroundAtMs: number
  pumping: boolean
  closed: boolean
  nextId: number
  leaving: Set<Promise<void>>
}

const MiB = 1024 * 1024
/** How often peers are asked what they have. */
const pollMs = 200
const demandPollMs = 2_000
/** A host that we know to fill the image is counted on for so long before it has begun. */
const graceMs = 3_000
/** And for so long after it last had something new. */
const growthMs = 4_000
const missedMs = 5_000
/** How long what is asked of a source should take; urgent things wait behind it. */
const aimMs = 400
const guestAimMs = 100
/**
 * So long after a guest had to wait it may have to again: besides what guests wait for, one chunk
 * is on its way at a time. More shares the link with what a guest waits for; that costs a boot more
 * than guessing right brings it.
 */
const guestNearMs = 30_000
const guessesAtOnce = 1
/**
 * After a guest waited, nothing that nobody asks for is fetched for so long: a guest that boots
 * waits again and again, each time for what it has just learnt that it needs. On a link of 100
 * Mbit/s a boot among background requests took as long as the whole image.
 */
const quietMs = 4_000
/** A guest that never ceases to read must not keep the image from becoming whole. */
const starvedMs = 30_000
const urgentAtOnce = 8
const chunksAtOnce = 64
/** Peers that bring less than this together are no help. */
const leastPeerBytesPerSecond = 1 * MiB
const reliefAfterMs = 5_000

/** Makes a crew without sources. */
export function createCrew(init: CrewInit, components: FillComponents): Crew {
  const context: Context = {
    ...{ init, components },
    lanes: new Map(),
    knownSinceMs: new Map(),
    sharers: '',
    peerMeter: createMeter(),
    originMeter: createMeter(),
    originBestPerSecond: 0,
    peersSinceMs: undefined,
    relief: false,
    backgroundAtMs: components.clock.monotonicMs(),
    pumping: false,
    closed: false,
    nextId: 0,
    leaving: new Set(),
  }
  const lanes = () => [...context.lanes.values()]
  return {
    setSources: sources => setSources(context, sources),
    pump: () => schedulePump(context),
    tick: () => tick(context),
    hasUsable: () => lanes().some(lane => lane.isUsable()),
    requestsInFlight: () => lanes().reduce((sum, lane) => sum + lane.requestsInFlight(), 0),
    troubles: () => troubles(lanes()),
    async close() {
      context.closed = true
      for (const lane of lanes()) leave(context, lane)
      await Promise.all(context.leaving)
    },
  }
}

function troubles(lanes: readonly Lane[]): string {
  if (lanes.length === 0) return 'it has no source'
  const said = lanes.flatMap(lane => lane.trouble() ?? [])
  if (said.length === 0) return 'no source has what is missing'
  return `${said.slice(0, 3).join('; ')}${said.length > 3 ? ` and ${said.length - 3} more` : ''}`
}

/** Those that stay go on undisturbed; the others end, or begin. */
function setSources(context: Context, sources: readonly SourceDescription[]): void {
  if (context.closed) return
  const { limits, rotten } = context.components
  const origins = sources.filter(({ kind }) => kind !== 'peer')
  const peers = sources.filter(({ kind, name }) => kind === 'peer' && !rotten.has(name))
  const wanted = [...origins, ...peers].slice(0, limits.fillSources)
  for (const lane of context.lanes.values()) {
    const stays = wanted.some(source => isDeepStrictEqual(source, lane.description))
    if (stays) lane.retryNow()
    else leave(context, lane)
  }
  const present = [...context.lanes.values()].map(({ description }) => description)
  for (const description of wanted) {
    if (!present.some(other => isDeepStrictEqual(other, description))) join(context, description)
  }
  tick(context)
}

function join(context: Context, description: SourceDescription): void {
  const { init, components } = context
  const id = String(context.nextId++)
  const { choice } = init
  const isPeer = description.kind === 'peer'
  choice.addSource(id, !isPeer)
  choice.setUsable(id, false)
  if (isPeer && !context.knownSinceMs.has(description.name)) {
    context.knownSinceMs.set(description.name, components.clock.monotonicMs())
  }
  const lane = createLane(
    {
      ...{ id, description, layers: init.layers, numbers: init.numbers },
      wantsLayer: layer => choice.wantsLayer(layer),
      async onChunk(number, bytes) {
        const verdict = await init.onChunk(number, bytes, description.kind)
        if (verdict === 'stored') onStored(context, lane, number)
        return verdict
      },
      onEnded: numbers => {
        for (const number of numbers) choice.ended(id, number)
      },
      onHeld: held => choice.setHeld(id, held),
      onMissed: number =>
        choice.failedToBring(id, number, components.clock.monotonicMs() + missedMs),
      onChange() {
        choice.setUsable(id, lane.isUsable())
        schedulePump(context)
      },
      onRotten() {
        components.rotten.add(description.name)
        leave(context, lane)
      },
    },
    components,
  )
  context.lanes.set(id, lane)
}

function leave(context: Context, lane: Lane): void {
  context.lanes.delete(lane.id)
  const left = lane.close().finally(() => {
    context.init.choice.dropSource(lane.id)
    context.leaving.delete(left)
  })
  context.init.choice.setUsable(lane.id, false)
  context.leaving.add(left)
}

function onStored(context: Context, from: Lane, number: number): void {
  const nowMs = context.components.clock.monotonicMs()
  const meter = from.description.kind === 'peer' ? context.peerMeter : context.originMeter
  meter.add(context.init.numbers.bytesOf(number), nowMs)
  for (const lane of context.lanes.values()) if (lane !== from) lane.forget(number)
  schedulePump(context)
}

function tick(context: Context): void {
  if (context.closed || context.init.isPaused()) return
  for (const lane of context.lanes.values()) {
    lane.tick(context.init.wantsAll() || context.init.guestsWait() ? pollMs : demandPollMs)
  }
  const nowMs = context.components.clock.monotonicMs()
  findSharers(context, nowMs)
  findRelief(context, nowMs)
  schedulePump(context)
}

/** The hosts that bring their share: they get on, or may be about to begin. */
function findSharers(context: Context, nowMs: number): void {
  const hosts = [...context.lanes.values()].flatMap(lane => {
    const { kind, name } = lane.description
    if (kind !== 'peer' || lane.hasAll()) return []
    const isNew = nowMs - (context.knownSinceMs.get(name) ?? nowMs) < graceMs
    const grows = lane.isUsable() && nowMs - lane.lastGrowthMs() < growthMs
    return isNew || grows ? [name] : []
  })
  const sharers = [...new Set(hosts)].sort()
  if (sharers.join('\n') === context.sharers) return
  context.sharers = sharers.join('\n')
  context.init.choice.setSharers(sharers)
}

/**
 * Peers that bring next to nothing, or far less than a registry did, are helped out: a limit that
 * an operator set, or a slow link, must not make an image come slower than without them.
 */
function findRelief(context: Context, nowMs: number): void {
  const peers = [...context.lanes.values()].filter(
    lane => lane.description.kind === 'peer' && lane.isUsable(),
  )
  context.originBestPerSecond = Math.max(
    context.originBestPerSecond,
    context.originMeter.perSecond(nowMs),
  )
  if (peers.length === 0) context.peersSinceMs = undefined
  else context.peersSinceMs ??= nowMs
  const sinceMs = context.peersSinceMs
  context.relief =
    sinceMs !== undefined &&
    nowMs - sinceMs > reliefAfterMs &&
    context.peerMeter.perSecond(nowMs) <
      Math.max(leastPeerBytesPerSecond, context.originBestPerSecond / 4)
}

function schedulePump(context: Context): void {
  if (context.pumping) return
  context.pumping = true
  queueMicrotask(() => {
    context.pumping = false
    if (!context.closed && !context.init.isPaused()) pump(context)
  })
}

function pump(context: Context): void {
  const { init, components } = context
  const nowMs = components.clock.monotonicMs()
  const lanes = [...context.lanes.values()].filter(lane => lane.isUsable()).sort(bestFirst)
  for (const lane of lanes) {
    while (lane.requestsInFlight() < components.limits.sourceRequestsAtOnce + urgentAtOnce) {
      const number = init.choice.chooseUrgent(lane.id, nowMs)
      if (number === undefined) break
      ask(context, lane, [number], guestAimMs, nowMs)
    }
  }
  const sinceGuestMs = nowMs - init.lastGuestMs()
  const isQuiet = !init.guestsWait() && sinceGuestMs >= quietMs
  const background = init.wantsAll() && (isQuiet || nowMs - context.backgroundAtMs >= starvedMs)
  const isNear = sinceGuestMs < guestNearMs
  for (const lane of lanes) {
    for (;;) {
      const bytes = roomOf(context, lane)
      if (bytes <= 0 || (isNear && requests(lanes) >= guessesAtOnce)) break
      const room: Room = {
        ...{ bytes, count: isNear ? 1 : chunksAtOnce, relief: context.relief, background },
      }
      const numbers = init.choice.choose(lane.id, room, nowMs)
      if (numbers.length === 0) break
      if (room.background) context.backgroundAtMs = nowMs
      ask(context, lane, numbers, isNear ? guestAimMs : aimMs, nowMs)
    }
  }
}

/** Peers before origins, the quicker before the slower. */
function bestFirst(one: Lane, other: Lane): number {
  const order = Number(one.description.kind !== 'peer') - Number(other.description.kind !== 'peer')
  return order || one.window.expectedMs() - other.window.expectedMs()
}

function requests(lanes: readonly Lane[]): number {
  return lanes.reduce((sum, lane) => sum + lane.requestsInFlight(), 0)
}

/** Plain bytes that one more request may ask for: a quarter of the window, so that it never runs dry. */
function roomOf({ lanes, components }: Context, lane: Lane): number {
  if (lane.requestsInFlight() >= components.limits.sourceRequestsAtOnce) return 0
  const window = lane.window.bytes()
  const inFlight = [...lanes.values()].reduce((sum, other) => sum + other.bytesInFlight(), 0)
  const left = Math.min(window - lane.bytesInFlight(), components.allowanceBytes() - inFlight)
  return left < Math.min(MiB / 2, window / 4) ? 0 : Math.min(left, Math.max(MiB, window / 4))
}

function ask(
  { init }: Context,
  lane: Lane,
  numbers: readonly number[],
  aim: number,
  nowMs: number,
): void {
  init.choice.asked(lane.id, numbers, lane.window.expectedMs(), nowMs)
  lane.ask(numbers, aim)
}
