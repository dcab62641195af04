import { type BackoffInit, backoffMs } from './backoff.ts'
import type { Clock, Timer } from './clock.ts'
import { type Log, messageOf } from './log.ts'

/**
 * What a handler wants next: nothing (undefined), or to be called again after so many milliseconds.
 */
export type Again = { againMs: number } | undefined

/** How a work queue is made. */
export interface WorkQueueInit {
  /**
   * Does what the key needs now, reading the present state: events carry no data (level-triggered).
   */
  handle(key: string): Promise<Again>
  /** The wait after a handler threw. */
  backoff: BackoffInit
}

/** What a work queue needs. */
export interface WorkQueueComponents {
  clock: Clock
  log: Log
}

/**
 * One lane per key: a key is never handled twice at once; adding a key that is being handled makes
 * it run once more afterwards, however often it was added. Keys do not wait for each other.
 */
export interface WorkQueue {
  /** Asks for the key to be handled soon; a waiting retry is brought forward. */
  add(key: string): void
  /** Stops taking keys and waits for the handlers under way. */
  stop(): Promise<void>
  /** Keys that are being handled now or wait for a retry. */
  size(): number
}

interface Lane {
  /** Also while the handler's first lines run, in which it may add its own key. */
  busy: boolean
  running?: Promise<void>
  again: boolean
  failures: number
  timer?: Timer
}

/** Makes a queue; nothing runs until a key is added. */
export function createWorkQueue(init: WorkQueueInit, components: WorkQueueComponents): WorkQueue {
  const { clock, log } = components
  const lanes = new Map<string, Lane>()
  let stopped = false

  const wake = (key: string, lane: Lane): void => {
    lane.timer?.cancel()
    lane.timer = undefined
    if (stopped) return
    if (lane.busy) {
      lane.again = true
      return
    }
    lane.again = false
    lane.busy = true
    lane.running = runLane(key, lane)
  }

  const runLane = async (key: string, lane: Lane): Promise<void> => {
    let waitMs: number | undefined
    try {
      waitMs = (await init.handle(key))?.againMs
      lane.failures = 0
    } catch (error) {
      lane.failures++
      waitMs = backoffMs(init.backoff, lane.failures)
      log.warn({ key, failures: lane.failures, error: messageOf(error) }, 'work failed, will retry')
    }
    lane.busy = false
    lane.running = undefined
    if (stopped) return
    if (lane.again) wake(key, lane)
    else if (waitMs !== undefined) lane.timer = clock.setTimer(waitMs, () => wake(key, lane))
    else lanes.delete(key)
  }

  return {
    add(key) {
      if (stopped) return
      const lane = lanes.get(key) ?? { busy: false, again: false, failures: 0 }
      lanes.set(key, lane)
      wake(key, lane)
    },
    async stop() {
      stopped = true
      for (const lane of lanes.values()) lane.timer?.cancel()
      await Promise.all([...lanes.values()].map(lane => lane.running))
    },
    size: () => lanes.size,
  }
}
