import type { Clock, Timer } from '../../base/clock.ts'
import { isFailure } from '../../base/errors.ts'
import { type Log, messageOf } from '../../base/log.ts'
import type { Guardian } from '../guardian/client.ts'
import type { ProcessBook } from './process-book.ts'

/** What is followed, and who wants to know. */
export interface GuardianFollowInit {
  processes: ProcessBook
  /** A process has ended; the book has it. */
  onExit(name: string): void
  /** The book is true again: after the first list, and after every one that followed. */
  onListed(): void
}

/** What following needs. */
export interface GuardianFollowComponents {
  guardian: Pick<Guardian, 'list' | 'onExit' | 'onLost' | 'onConnected'>
  clock: Clock
  log: Log
}

/** The guardian's processes, kept true. */
export interface GuardianFollowing {
  /** Whether the book can be trusted: no while the guardian is away or a list is under way. */
  isTrue(): boolean
  /**
   * Says that the book may be wrong: the guardian said something that does not fit it, or a request
   * got no answer and may have been carried out. Everything is asked for again, at most once a
   * second.
   */
  doubt(): void
  stop(): void
}

/** After a list that failed, and while a process is listed that is only about to start. */
const againMs = 1000

/**
 * Keeps the book in step with the guardian for as long as both live. What the guardian tells while
 * nobody listens is lost, so everything is asked for after each connection.
 */
export async function followGuardian(
  init: GuardianFollowInit,
  components: GuardianFollowComponents,
): Promise<GuardianFollowing> {
  const { processes } = init
  const { guardian, clock, log } = components
  let isTrue = false
  let listing = false
  let asked = false
  let stopped = false
  let listedMs = Number.NEGATIVE_INFINITY
  let timer: Timer | undefined

  const later = (): void => {
    timer?.cancel()
    if (!stopped) timer = clock.setTimer(againMs, () => void refresh())
  }

  /** Never rejects: nobody waits for it. */
  const refresh = async (): Promise<void> => {
    isTrue = false
    asked = true
    if (listing || stopped) return
    listing = true
    timer?.cancel()
    try {
      while (asked && !stopped) {
        asked = false
        await processes.refresh(() => guardian.list())
      }
    } catch (error) {
      if (!stopped)
        log.warn({ error: messageOf(error) }, 'the guardian does not list its processes')
      return later()
    } finally {
      listing = false
    }
    if (stopped) return
    isTrue = true
    listedMs = clock.monotonicMs()
    const starting = processes.all().some(({ identity, ended }) => !identity && !ended)
    if (starting) later()
    init.onListed()
  }

  const ends = [
    guardian.onExit(process => {
      processes.set(process)
      init.onExit(process.name)
    }),
    // Asked before there is a connection, this waits for one.
    guardian.onLost(() => void refresh()),
    guardian.onConnected(() => void refresh()),
  ]
  await refresh()
  return {
    isTrue: () => isTrue,
    doubt() {
      isTrue = false
      if (clock.monotonicMs() - listedMs < againMs) later()
      else void refresh()
    },
    stop() {
      stopped = true
      timer?.cancel()
      for (const end of ends) end()
    },
  }
}

/**
 * Whether our picture of the guardian's processes may be wrong: a request may have been carried
 * out.
 */
export function isAboutProcesses(error: unknown): boolean {
  const codes = [
    'guardianUnavailable',
    'guardianNameTaken',
    'guardianProcessNotFound',
    'guardianStaleIdentity',
  ] as const
  return codes.some(code => isFailure(error, code))
}
