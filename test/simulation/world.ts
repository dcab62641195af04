import type { Timer } from '../../base/clock.ts'
import type { Log } from '../../base/log.ts'
import { createSeededRandom, type Random, randomInteger } from '../../base/random.ts'

/** Chance from a seed, in the shapes that a simulation needs. */
export class Chance {
  readonly random: Random

  constructor(seed: number) {
    this.random = createSeededRandom(seed)
  }

  /** A whole number from 0 up to, not including, `limit`. */
  integer(limit: number): number {
    return randomInteger(this.random, limit)
  }

  between(least: number, most: number): number {
    return least + (this.integer(2 ** 30) / 2 ** 30) * (most - least)
  }

  happens(probability: number): boolean {
    return probability > 0 && this.integer(2 ** 30) < probability * 2 ** 30
  }

  pick<T>(from: readonly T[]): T {
    const found = from[this.integer(from.length)]
    if (found === undefined) throw new Error('nothing to pick from')
    return found
  }

  /** Chance of its own for a part, so that what one draws does not change what another gets. */
  fork(): Chance {
    return new Chance(this.integer(2 ** 32))
  }
}

/** One line of the story of a run. */
export interface StoryLine {
  atMs: number
  who: string
  text: string
}

interface Due {
  atMs: number
  order: number
  callback: (() => void) | undefined
}

/** What must never be, and was. */
export class Violation extends Error {
  /** The machines, hosts and names that it is about. */
  readonly subjects: readonly string[]

  constructor(message: string, subjects: readonly string[]) {
    super(message)
    this.name = 'Violation'
    this.subjects = subjects.filter(subject => subject !== '')
  }
}

/** Events within a millisecond. */
const busyMost = 100_000
/** Lines of the story that are kept. */
const storyMost = 200_000

/**
 * Virtual time: one queue of events for everything there is. Between two events all promises
 * settle, so that the same seed gives the same run.
 */
export class World {
  nowMs = 0
  readonly seed: number
  readonly chance: Chance
  readonly story: StoryLine[] = []
  violation: Violation | undefined
  #events = 0
  #order = 0
  readonly #heap: Due[] = []

  constructor(seed: number) {
    this.seed = seed
    this.chance = new Chance(seed)
  }

  /** How many events have happened. */
  get events(): number {
    return this.#events
  }

  /** Calls back after so many milliseconds of virtual time. */
  after(delayMs: number, callback: () => void): Timer {
    const due: Due = {
      atMs: this.nowMs + Math.max(0, delayMs),
      order: this.#order++,
      callback,
    }
    this.#push(due)
    return {
      cancel() {
        due.callback = undefined
      },
    }
  }

  /** Lets time pass, or until an invariant is violated. */
  async run(forMs: number): Promise<void> {
    const untilMs = this.nowMs + forMs
    let busySinceMs = this.nowMs
    let busy = 0
    await settle()
    while (this.violation === undefined) {
      const [next] = this.#heap
      if (next === undefined || next.atMs > untilMs) break
      this.#pop()
      if (next.callback === undefined) continue
      if (next.atMs >= busySinceMs + 1) {
        busySinceMs = next.atMs
        busy = 0
      }
      if (busy++ > busyMost)
        this.violate('something is repeated without end, and no time passes', [])
      this.nowMs = next.atMs
      this.#events++
      next.callback()
      await settle()
    }
    if (this.violation === undefined) this.nowMs = untilMs
  }

  tell(who: string, text: string): void {
    this.story.push({ atMs: this.nowMs, who, text })
    if (this.story.length > storyMost) this.story.splice(0, storyMost / 2)
  }

  /** The run ends here; only the first counts. */
  violate(message: string, subjects: readonly string[]): void {
    if (this.violation !== undefined) return
    this.violation = new Violation(message, subjects)
    this.tell('world', `VIOLATED: ${message}`)
  }

  #push(due: Due): void {
    const heap = this.#heap
    let at = heap.push(due) - 1
    while (at > 0) {
      const parent = (at - 1) >> 1
      const above = heap[parent] as Due
      if (isBefore(above, due)) break
      heap[at] = above
      at = parent
    }
    heap[at] = due
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && isBefore(heap[child + 1] as Due, heap[child] as Due)) child++
      const below = heap[child] as Due
      if (isBefore(last, below)) break
      heap[at] = below
      at = child
    }
    heap[at] = last
  }
}

function isBefore(one: Due, other: Due): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order)
}

/** Every promise callback that is ready runs before the next turn of the event loop. */
function settle(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve))
}

/** A log whose lines become part of the story. */
export function storyLog(world: World, who: string): Log {
  const say = (fields: object, message: string): void => {
    const values = Object.entries(fields).map(([name, value]) => `${name}=${textOf(value)}`)
    world.tell(who, [message, ...values].join(' '))
  }
  const log: Log = { debug: () => {}, info: say, warn: say, error: say, child: () => log }
  return log
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '')
}
