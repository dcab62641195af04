import type { BootClock } from '../../base/boot-clock.ts'
import type { Clock, Timer } from '../../base/clock.ts'
import type { Log } from '../../base/log.ts'
import { storyLog, type World } from './world.ts'

const epochMs = 1_700_000_000_000

/** The clocks of one machine: they run at a rate of their own, and its wall clock may jump. */
export class MachineClocks {
  readonly rate: number
  wallOffsetMs: number
  #bootedMs = 0
  readonly #world: World

  constructor(world: World, rate: number, wallOffsetMs: number) {
    this.#world = world
    this.rate = rate
    this.wallOffsetMs = wallOffsetMs
  }

  /** The machine is booted anew: its boot clock begins at 0. */
  boot(): void {
    this.#bootedMs = this.#world.nowMs
  }

  sinceBootMs(): number {
    return (this.#world.nowMs - this.#bootedMs) * this.rate
  }

  wallMs(): number {
    return epochMs + this.#world.nowMs * this.rate + this.wallOffsetMs
  }
}

interface Held {
  isTimer: boolean
  callback: () => void
}

/**
 * A process. Everything that reaches it goes through it: while it is frozen that waits, and when
 * it has ended nothing of it ever goes on. What it was in the middle of is simply never continued.
 */
export class Actor {
  readonly name: string
  readonly world: World
  readonly clocks: MachineClocks
  readonly clock: Clock
  readonly bootClock: BootClock
  readonly log: Log
  /** Aborted with its end; for what is not its own code only. */
  readonly over = new AbortController()
  #state: 'runs' | 'frozen' | 'ended' = 'runs'
  #held: Held[] = []

  constructor(name: string, world: World, clocks: MachineClocks) {
    this.name = name
    this.world = world
    this.clocks = clocks
    this.log = storyLog(world, name)
    this.clock = {
      wallMs: () => Math.round(clocks.wallMs()),
      monotonicMs: () => clocks.sinceBootMs(),
      // No timer of Node is shorter than a millisecond.
      setTimer: (delayMs, callback) =>
        this.#schedule(Math.max(1, delayMs) / clocks.rate, callback, true),
    }
    // As /proc/uptime has it.
    this.bootClock = { nowMs: () => Math.floor(clocks.sinceBootMs() / 10) * 10 }
  }

  get state(): 'runs' | 'frozen' | 'ended' {
    return this.#state
  }

  /** Something reaches it from outside, after so much time of the world's. */
  after(delayMs: number, callback: () => void): Timer {
    return this.#schedule(delayMs, callback, false)
  }

  /** Goes on after so long, as soon as it can. */
  pass(delayMs: number): Promise<void> {
    return new Promise(resolve => {
      this.after(delayMs, resolve)
    })
  }

  deliver(callback: () => void, isTimer = false): void {
    if (this.#state === 'ended') return
    if (this.#state === 'frozen') this.#held.push({ isTimer, callback })
    else callback()
  }

  freeze(): void {
    if (this.#state === 'runs') this.#state = 'frozen'
  }

  /** It goes on as an event loop does: with the timers that are due, then with what came in. */
  thaw(): void {
    if (this.#state !== 'frozen') return
    this.#state = 'runs'
    const held = this.#held
    this.#held = []
    const timers = held.filter(({ isTimer }) => isTimer)
    const others = held.filter(({ isTimer }) => !isTimer)
    for (const { callback, isTimer } of [...timers, ...others]) {
      this.world.after(0, () => this.deliver(callback, isTimer))
    }
  }

  end(): void {
    this.#state = 'ended'
    this.#held = []
    this.over.abort()
  }

  #schedule(delayMs: number, callback: () => void, isTimer: boolean): Timer {
    let cancelled = false
    const guarded = (): void => {
      if (!cancelled) callback()
    }
    const timer = this.world.after(delayMs, () => this.deliver(guarded, isTimer))
    return {
      cancel() {
        cancelled = true
        timer.cancel()
      },
    }
  }
}
