import { type Random, randomInteger } from '../../base/random.ts'
import { allBits, emptyBits, forEachCommon, hasBit, putBit } from './bitmap.ts'
import type { ChunkNumbers } from './chunk-numbers.ts'
import { createRequests, isOverdue, type Requests } from './requests.ts'
import { divide, type Groups, groupChunks, type Shares } from './shares.ts'

/** How a choice is made. */
export interface ChoiceInit {
  /** This host, as others know it. */
  host: string
  numbers: ChunkNumbers
  /** What is here is not chosen. */
  isHere(number: number): boolean
}

/** What a source may be asked for now. */
export interface Room {
  /** Plain bytes; one chunk is chosen even if it is larger. */
  bytes: number
  /** Chunks. */
  count: number
  /** False: only what guests wait for and what they are guessed to want next. */
  background: boolean
  /** The peers hardly deliver: an origin may be asked for what they have, too. */
  relief: boolean
}

/**
 * Which chunk is asked of which source next. Pure: no clock, no network; it is told what happened.
 *
 * A source is a peer, which has some chunks and is preferred, or an origin (a registry, a library),
 * which has all and is spared. Of an origin a host asks for what no peer has: its share of that
 * (shares.ts), while the hosts it shares with bring theirs; then what another leaves to the last.
 * Of peers it asks for the chunks that the fewest have.
 */
export interface Choice {
  missingCount(): number
  /** Whether something of a layer is missing. */
  wantsLayer(layer: number): boolean
  /** It is here: nobody is asked for it any more. */
  arrived(number: number): void
  /** What had arrived could not be kept. */
  lost(number: number): void
  /** A source that has all (an origin) or nothing (a peer) until told otherwise. */
  addSource(id: string, origin: boolean): void
  dropSource(id: string): void
  /** What it has, by number; undefined: all. */
  setHeld(id: string, held: Uint8Array | undefined): void
  /** One that fails at the moment is not counted on. */
  setUsable(id: string, usable: boolean): void
  /** Hosts that fill the same image now, without this one. */
  setSharers(hosts: readonly string[]): void
  /** A guest waits for it. */
  urge(number: number, nowMs: number): void
  /** Nobody waits for it any more. */
  calm(number: number): void
  /** What guests will read next, as far as one can tell; replaces what was guessed before. */
  guess(numbers: readonly number[]): void
  /** The next chunk that a guest waits for and this source should bring. */
  chooseUrgent(id: string, nowMs: number): number | undefined
  /** What else this source should bring, in the order in which it is wanted. */
  choose(id: string, room: Room, nowMs: number): number[]
  /** A source was asked. */
  asked(id: string, numbers: readonly number[], expectedMs: number, nowMs: number): void
  /** An answer came, or will not come. */
  ended(id: string, number: number): void
  /** A source had said that it has it, and does not bring it: not asked for it for a while. */
  failedToBring(id: string, number: number, untilMs: number): void
}

interface Source {
  origin: boolean
  usable: boolean
  held: Uint8Array
  notBefore: Map<number, number>
}

interface State {
  init: ChoiceInit
  random: Random
  missing: Uint8Array
  missingCount: number
  sources: Map<string, Source>
  /** By chunk: usable peers that have it. */
  holders: Uint16Array
  groups: Groups
  sharers: readonly string[]
  shares: Shares | undefined
  requests: Requests
  /** When the guest began to wait. */
  urgent: Map<number, number>
  guessed: readonly number[]
}

/** Chunks looked at to find the rarest: enough that hosts seldom choose alike. */
const sampleChunks = 1024
/** With so few left, one slow source must not keep the end waiting. */
const endChunks = 32
/** Chunks that another host is left to bring of its share: it may have asked for them already. */
const leftChunks = 8
/** Chunks remembered per source as not brought. */
const mostNotBefore = 4096
const urgentPatience = { leastMs: 250, factor: 2 }
const endPatience = { leastMs: 400, factor: 1.5 }
const patience = { leastMs: 2_000, factor: 4 }
/** Before an origin is asked for what a peer was asked for. */
const originPatience = { leastMs: 2_000, factor: 3 }

/** Begins with everything that is not here. */
export function createChoice(init: ChoiceInit, components: { random: Random }): Choice {
  const state = createState(init, components.random)
  const source = (id: string) => state.sources.get(id)
  return {
    missingCount: () => state.missingCount,
    wantsLayer: layer => wantsLayer(state, layer),
    arrived(number) {
      if (!hasBit(state.missing, number)) return
      putBit(state.missing, number, false)
      state.missingCount--
      state.urgent.delete(number)
    },
    lost(number) {
      if (hasBit(state.missing, number)) return
      putBit(state.missing, number, true)
      state.missingCount++
    },
    addSource: (id, origin) => addSource(state, id, origin),
    dropSource(id) {
      setUsable(state, id, false)
      state.sources.delete(id)
    },
    setHeld: (id, held) => setHeld(state, id, held ?? allBits(init.numbers.count)),
    setUsable: (id, usable) => setUsable(state, id, usable),
    setSharers(hosts) {
      state.sharers = [...new Set(hosts)].filter(host => host !== init.host)
      state.shares = undefined
    },
    urge(number, nowMs) {
      if (hasBit(state.missing, number) && !state.urgent.has(number)) {
        state.urgent.set(number, nowMs)
      }
    },
    calm: number => state.urgent.delete(number),
    guess(numbers) {
      state.guessed = numbers
    },
    chooseUrgent(id, nowMs) {
      const found = source(id)
      return found?.usable ? chooseUrgent(state, id, found, nowMs) : undefined
    },
    choose(id, room, nowMs) {
      const found = source(id)
      return found?.usable ? choose(state, id, found, room, nowMs) : []
    },
    asked(id, numbers, expectedMs, nowMs) {
      for (const number of numbers) {
        state.requests.add(number, { source: id, askedAtMs: nowMs, expectedMs })
      }
    },
    ended: (id, number) => state.requests.remove(number, id),
    failedToBring(id, number, untilMs) {
      const notBefore = source(id)?.notBefore
      if (notBefore === undefined) return
      if (notBefore.size >= mostNotBefore) notBefore.clear()
      notBefore.set(number, untilMs)
    },
  }
}

function createState(init: ChoiceInit, random: Random): State {
  const { count } = init.numbers
  const missing = emptyBits(count)
  let missingCount = 0
  for (let number = 0; number < count; number++) {
    if (init.isHere(number)) continue
    putBit(missing, number, true)
    missingCount++
  }
  return {
    init,
    random,
    missing,
    missingCount,
    sources: new Map(),
    holders: new Uint16Array(count),
    groups: groupChunks(count),
    sharers: [],
    shares: undefined,
    requests: createRequests(),
    urgent: new Map(),
    guessed: [],
  }
}

function wantsLayer({ init, missing }: State, layer: number): boolean {
  const { firsts, count } = init.numbers
  for (let number = firsts[layer] ?? 0; number < (firsts[layer + 1] ?? count); number++) {
    if (hasBit(missing, number)) return true
  }
  return false
}

function addSource(state: State, id: string, origin: boolean): void {
  const { count } = state.init.numbers
  const held = origin ? allBits(count) : emptyBits(count)
  state.sources.set(id, { origin, usable: true, held, notBefore: new Map() })
}

function setHeld(state: State, id: string, held: Uint8Array): void {
  const source = state.sources.get(id)
  if (source === undefined) return
  if (!source.origin && source.usable) count(state, source.held, held)
  source.held = held
}

function setUsable(state: State, id: string, usable: boolean): void {
  const source = state.sources.get(id)
  if (source === undefined || source.usable === usable) return
  source.usable = usable
  if (source.origin) return
  const none = new Uint8Array(source.held.length)
  if (usable) count(state, none, source.held)
  else count(state, source.held, none)
}

/** Counts holders anew where a peer's chunks changed. */
function count(state: State, before: Uint8Array, after: Uint8Array): void {
  for (let at = 0; at < before.length; at++) {
    const changed = (before[at] ?? 0) ^ (after[at] ?? 0)
    if (changed === 0) continue
    for (let number = at * 8; number < at * 8 + 8; number++) {
      if ((changed & (1 << (number & 7))) === 0) continue
      const holders = state.holders[number] ?? 0
      state.holders[number] = hasBit(after, number) ? holders + 1 : Math.max(0, holders - 1)
    }
  }
}

/** Whether a source can bring a chunk that is missing. */
function canBring(state: State, source: Source, number: number, nowMs: number): boolean {
  if (!hasBit(state.missing, number) || !hasBit(source.held, number)) return false
  const until = source.notBefore.get(number)
  if (until === undefined) return true
  if (until > nowMs) return false
  source.notBefore.delete(number)
  return true
}

function heldByPeers(state: State, number: number): boolean {
  return (state.holders[number] ?? 0) > 0
}

function chooseUrgent(state: State, id: string, source: Source, nowMs: number): number | undefined {
  for (const [number, sinceMs] of state.urgent) {
    if (!canBring(state, source, number, nowMs)) continue
    const requests = state.requests.of(number)
    // Peers that have it are asked by now, unless all are too busy.
    const isOurs =
      !source.origin || !heldByPeers(state, number) || nowMs - sinceMs > urgentPatience.leastMs
    if (requests.length === 0 && isOurs) return number
    if (isOverdue(requests, id, nowMs, urgentPatience)) return number
  }
  return undefined
}

function choose(state: State, id: string, source: Source, room: Room, nowMs: number): number[] {
  const chosen = new Set<number>()
  let left = room.bytes
  /** @returns whether there is room for more */
  const take = (number: number): boolean => {
    const bytes = state.init.numbers.bytesOf(number)
    if (chosen.size > 0 && bytes > left) return false
    chosen.add(number)
    left -= bytes
    return left > 0 && chosen.size < room.count
  }
  const isFree = (number: number): boolean =>
    !chosen.has(number) && !state.requests.has(number) && canBring(state, source, number, nowMs)
  for (const number of state.guessed) {
    if (!isFree(number) || (source.origin && heldByPeers(state, number))) continue
    if (!take(number)) return [...chosen]
  }
  if (!room.background || chosen.size > 0) return [...chosen]
  if (source.origin) takeFromOrigin(state, room, isFree, take)
  else takeRarest(state, source, isFree, take)
  if (chosen.size === 0) takeOverdue(state, id, source, nowMs, take)
  return [...chosen]
}

/** Of a sample from a random place on, first what the fewest peers have. */
function takeRarest(
  state: State,
  source: Source,
  isFree: (number: number) => boolean,
  take: (number: number) => boolean,
): void {
  if (state.missing.length === 0) return
  const byHolders: number[][] = []
  let seen = 0
  const from = randomInteger(state.random, state.missing.length)
  forEachCommon(state.missing, source.held, from, number => {
    if (!isFree(number)) return true
    const holders = state.holders[number] ?? 0
    byHolders[holders] ??= []
    byHolders[holders].push(number)
    return ++seen < sampleChunks
  })
  // Sparse: `flat` leaves out the counts that nobody has.
  for (const number of byHolders.flat()) if (!take(number)) return
}

function takeFromOrigin(
  state: State,
  room: Room,
  isFree: (number: number) => boolean,
  take: (number: number) => boolean,
): void {
  const { groups, sharers, init } = state
  state.shares ??= divide(groups.count, [init.host, ...sharers])
  const { shares } = state
  let full = false
  const takeGroup = (group: number, alsoHeld: boolean): void => {
    const end = Math.min((group + 1) * groups.chunks, init.numbers.count)
    for (let number = group * groups.chunks; number < end && !full; number++) {
      if (isFree(number) && (alsoHeld || !heldByPeers(state, number))) full = !take(number)
    }
  }
  let taken = false
  const isTaken = (group: number) => {
    takeGroup(group, false)
    return full
  }
  taken = shares.of(init.host).some(isTaken)
  if (taken) return
  for (const host of sharers) {
    const open = shares.of(host).filter(group => isOpen(state, group))
    const helped = open.slice(Math.ceil(leftChunks / groups.chunks)).reverse()
    if (helped.filter(group => shares.heirOf(group) === init.host).some(isTaken)) return
  }
  if (!room.relief) return
  for (let group = 0; group < groups.count && !full; group++) takeGroup(group, true)
}

/** Whether some of a group is missing here and at all peers. */
function isOpen(state: State, group: number): boolean {
  const { groups, init } = state
  const end = Math.min((group + 1) * groups.chunks, init.numbers.count)
  for (let number = group * groups.chunks; number < end; number++) {
    if (hasBit(state.missing, number) && !heldByPeers(state, number)) return true
  }
  return false
}

/** What was asked of another source and does not come; sooner when little is left. */
function takeOverdue(
  state: State,
  id: string,
  source: Source,
  nowMs: number,
  take: (number: number) => boolean,
): void {
  const peerPatience = state.missingCount <= endChunks ? endPatience : patience
  for (const [number, requests] of state.requests.all()) {
    const held = heldByPeers(state, number)
    const waits = source.origin && held ? originPatience : peerPatience
    if (!isOverdue(requests, id, nowMs, waits)) continue
    if (canBring(state, source, number, nowMs) && !take(number)) return
  }
}
