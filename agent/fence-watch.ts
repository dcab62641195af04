import type { BootClock } from '../base/boot-clock.ts'
import type { Clock, Timer } from '../base/clock.ts'
import { isFailure } from '../base/errors.ts'
import { type Log, messageOf } from '../base/log.ts'
import { signalProcess } from '../base/process-identity.ts'
import type { Timing } from '../cluster/fleet/timing.ts'
import type { Guardian } from './guardian/client.ts'
import { findMarked, markOf } from './guardian/orphans.ts'
import type { FencedGuest, HeartbeatAnswer } from './guardian/protocol.ts'
import { GuardianSilence } from './guardian/silence.ts'

/** Whose guests are watched. */
export interface FenceWatchInit {
  /** The guardian's, by which its processes are known. */
  dataFolder: string
  timing: Timing
  /** Called with everything that the guardian answers to a heartbeat. */
  onAnswer(answer: HeartbeatAnswer): void
  /** Kills a guest; by default its process. @returns whether there was something to kill */
  kill?(guest: FencedGuest): boolean
}

/** What watching needs. */
export interface FenceWatchComponents {
  guardian: Guardian
  clock: Clock
  bootClock: BootClock
  log: Log
}

/** The daemon's watch over the guardian. */
export interface FenceWatch {
  /** The guardian, through which every fenced guest has to be started so that it is known here. */
  guardian: Guardian
  /** Says to the guardian that we live, now. Never rejects. */
  ask(): Promise<void>
  stop(): void
}

/**
 * Tells the guardian that the daemon lives, and does its duty when it is silent: fenced guests
 * whose deadline has passed are killed, by pid and start time.
 */
export function startFenceWatch(
  init: FenceWatchInit,
  { guardian, clock, bootClock, log }: FenceWatchComponents,
): FenceWatch {
  const silence = new GuardianSilence()
  let timer: Timer | undefined
  let stopped = false
  const told = new Set<string>()

  const ask = async (): Promise<void> => {
    if (silence.isAsking() || stopped) return
    const question = silence.ask()
    try {
      const answer = await guardian.heartbeat()
      if (stopped) return
      silence.answered(question, answer)
      told.clear()
      init.onAnswer(answer)
    } catch (error) {
      silence.failed()
      if (!stopped) log.warn({ error: messageOf(error) }, 'the guardian does not hear us')
    }
  }

  const killProcess = ({ name, identity }: FencedGuest): boolean => {
    const found = identity === undefined ? findMarked(markOf(init.dataFolder, name)) : [identity]
    return found.filter(process => signalProcess(process, 'SIGKILL')).length > 0
  }
  const kill = (guest: FencedGuest): void => {
    const { name } = guest
    const killed = (init.kill ?? killProcess)(guest)
    if (!killed || told.has(name)) return
    told.add(name)
    log.error({ name }, 'the guardian is silent and the deadline has passed: a guest is killed')
  }

  const check = (): void => {
    for (const guest of silence.check(bootClock.nowMs(), init.timing)) kill(guest)
    void ask()
    timer = clock.setTimer(silence.nextCheckMs(bootClock.nowMs(), init.timing), check)
  }
  const unsubscribe = guardian.onExit(({ name }) => silence.forget(name))
  check()

  const noticed: Guardian = {
    ...guardian,
    async start(parameters) {
      const { name, claim } = parameters
      if (claim?.fenced !== true) return guardian.start(parameters)
      silence.expect(name, bootClock.nowMs())
      try {
        const identity = await guardian.start(parameters)
        silence.started(name, identity)
        return identity
      } catch (error) {
        // Without an answer it may run.
        if (!isFailure(error, 'guardianUnavailable')) silence.forget(name)
        throw error
      }
    },
    async claim(name, claim, ahead = false) {
      const known = silence.guest(name)
      if (claim.fenced && known === undefined) silence.expect(name, bootClock.nowMs())
      await guardian.claim(name, claim, ahead)
      if (!claim.fenced && !ahead) silence.forget(name)
    },
  }
  return {
    guardian: noticed,
    ask,
    stop() {
      stopped = true
      timer?.cancel()
      unsubscribe()
    },
  }
}
