import type { Chance, World } from './world.ts'

/** Which way something goes: from the host to the others, or back. */
export type Direction = 'out' | 'back'

/** What a way of the network is like. */
export interface LinkQuality {
  leastMs: number
  mostMs: number
  /** Shares of messages that get lost, and that arrive twice. */
  loss: number
  doubling: number
}

/** A network as it should be. */
export const goodQuality: LinkQuality = { leastMs: 0.2, mostMs: 3, loss: 0, doubling: 0 }

/** What was under way when a link was cut may still arrive this long afterwards. */
const lateMostMs = 10_000

/** The way between one machine and the members of etcd. */
export class Link {
  readonly #world: World
  readonly #chance: Chance
  quality: LinkQuality = goodQuality
  readonly #cut = { out: false, back: false }
  #waiting: { direction: Direction; sinceMs: number; arrive: () => void }[] = []
  #broken = new AbortController()

  constructor(world: World, chance: Chance) {
    this.#world = world
    this.#chance = chance
  }

  /** Aborted when connections break; another one is there then. */
  get broken(): AbortSignal {
    return this.#broken.signal
  }

  isCut(direction: Direction): boolean {
    return this.#cut[direction]
  }

  delayMs(): number {
    const { leastMs, mostMs } = this.quality
    const delayMs = this.#chance.between(leastMs, mostMs)
    // Now and then one takes much longer.
    return this.#chance.happens(0.01) ? delayMs * 10 : delayMs
  }

  /** Something is sent; it arrives late, once, twice or never. */
  send(direction: Direction, arrive: () => void): void {
    if (this.#cut[direction]) {
      this.#hold(direction, arrive)
      return
    }
    if (this.#chance.happens(this.quality.loss)) return
    const twice = this.#chance.happens(this.quality.doubling)
    for (let copy = 0; copy < (twice ? 2 : 1); copy++) {
      this.#world.after(this.delayMs(), () => {
        if (this.#cut[direction]) this.#hold(direction, arrive)
        else arrive()
      })
    }
  }

  cut(...directions: Direction[]): void {
    for (const direction of directions) this.#cut[direction] = true
  }

  /** What was held back arrives now, if it is not too old. */
  heal(): void {
    this.#cut.out = false
    this.#cut.back = false
    const waiting = this.#waiting
    this.#waiting = []
    for (const { direction, sinceMs, arrive } of waiting) {
      if (this.#world.nowMs - sinceMs < lateMostMs) this.send(direction, arrive)
    }
  }

  /** All connections break, and can be made again at once. */
  breakConnections(): void {
    const broken = this.#broken
    this.#broken = new AbortController()
    broken.abort()
  }

  #hold(direction: Direction, arrive: () => void): void {
    // Resent by TCP for as long as the connection is there; half of them are not.
    if (this.#chance.happens(0.5)) {
      this.#waiting.push({ direction, sinceMs: this.#world.nowMs, arrive })
    }
  }
}
