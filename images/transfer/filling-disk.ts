import type { Clock } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { ReadableDisk } from '../nbd/readable-disk.ts'
import type { PartialDisk } from '../partial/partial-disk.ts'
import type { Choice } from './choice.ts'
import type { ChunkNumbers } from './chunk-numbers.ts'
import { createReadAhead } from './read-ahead.ts'

/** The disk of an image that is on its way, as guests read it. */
export interface FillingDisk {
  readonly disk: ReadableDisk
  /** A chunk is here. */
  arrived(number: number): void
  /** Whether a guest waits, since when the oldest does, and when one last had to. */
  isWaiting(): boolean
  waitingSinceMs(): number
  lastMissMs(): number
  /** Gives up what waited too long. @param stalled why nothing comes, if nothing does */
  tick(stalled: string | undefined): void
  /** Nothing more will come. */
  failAll(error: unknown): void
}

/** What it reads from. */
export interface FillingDiskInit {
  digest: string
  disk: PartialDisk
  numbers: ChunkNumbers
  choice: Choice
  /** Something is wanted that was not before. */
  onWanted(): void
}

/** What it needs. */
export interface FillingDiskComponents {
  clock: Clock
  limits: Pick<Limits, 'fillReadsWaiting'>
}

interface Wait {
  sinceMs: number
  left: Set<number>
  resolve(): void
  reject(error: unknown): void
}

/** How long a guest waits while no source is left, and while one is that brings nothing to it. */
const stalledWaitMs = 10_000
const longestWaitMs = 120_000

/** Reads wait for what is missing, which is asked for first. */
export function createFillingDisk(
  init: FillingDiskInit,
  { clock, limits }: FillingDiskComponents,
): FillingDisk {
  const { disk, numbers, choice } = init
  const waits = new Set<Wait>()
  const readAhead = createReadAhead()
  let lastMissMs = Number.NEGATIVE_INFINITY
  let ended: { error: unknown } | undefined

  const guess = (offsetBytes: number, lengthBytes: number): boolean => {
    const end = offsetBytes + lengthBytes
    const ahead = Math.min(readAhead.onRead(offsetBytes, lengthBytes), disk.virtualSizeBytes - end)
    const missing = ahead > 0 ? disk.missing(end, ahead) : []
    if (missing.length > 0) choice.guess(missing.map(name => numbers.numberOf(name)))
    return missing.length > 0
  }
  const bring = async (missing: readonly number[], signal: AbortSignal): Promise<void> => {
    if (waits.size >= limits.fillReadsWaiting) {
      throw failure('tooMany', { limit: limits.fillReadsWaiting, what: 'waiting reads' })
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const sinceMs = clock.monotonicMs()
    lastMissMs = sinceMs
    const wait: Wait = { sinceMs, left: new Set(missing), resolve, reject }
    const onAbort = () => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    waits.add(wait)
    for (const number of missing) choice.urge(number, sinceMs)
    init.onWanted()
    try {
      await promise
    } finally {
      signal.removeEventListener('abort', onAbort)
      waits.delete(wait)
      for (const number of wait.left) {
        if (![...waits].some(other => other.left.has(number))) choice.calm(number)
      }
    }
  }
  return {
    disk: {
      sizeBytes: disk.virtualSizeBytes,
      async read(offsetBytes, lengthBytes, signal) {
        const guessed = guess(offsetBytes, lengthBytes)
        for (;;) {
          signal.throwIfAborted()
          const missing = disk.missing(offsetBytes, lengthBytes)
          if (missing.length === 0) break
          if (ended !== undefined) throw ended.error
          await bring(
            missing.map(name => numbers.numberOf(name)),
            signal,
          )
        }
        if (guessed) init.onWanted()
        return await disk.read(offsetBytes, lengthBytes)
      },
    },
    arrived(number) {
      for (const wait of waits) {
        if (wait.left.delete(number) && wait.left.size === 0) wait.resolve()
      }
    },
    isWaiting: () => waits.size > 0,
    waitingSinceMs() {
      const [oldest] = waits
      return oldest?.sinceMs ?? Number.NEGATIVE_INFINITY
    },
    lastMissMs: () => lastMissMs,
    tick(stalled) {
      const nowMs = clock.monotonicMs()
      for (const wait of waits) {
        const waitedMs = nowMs - wait.sinceMs
        if (waitedMs < (stalled === undefined ? longestWaitMs : stalledWaitMs)) continue
        const detail = stalled ?? `nothing came for ${longestWaitMs / 1000} s`
        wait.reject(failure('imageStalled', { digest: init.digest, detail }))
      }
    },
    failAll(error) {
      ended = { error }
      for (const wait of waits) wait.reject(error)
    },
  }
}
