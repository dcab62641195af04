import { failure, messageOf } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import type { FleetStatus, Transition } from '../../interface/api/fleet-operations.ts'

/** One change of what the daemon is. */
export interface TransitionWork {
  kind: Transition
  /** Said at once, for people. */
  message: string
  /** Done while the daemon serves as it is; it may take long (an approval) and may fail freely. */
  prepare?(say: (message: string) => void, signal: AbortSignal): Promise<void>
  /** Done while the daemon's parts are down and guests run on. What it leaves must be whole. */
  change(say: (message: string) => void): Promise<void>
}

/** The changes of a daemon, one at a time. They outlive its parts. */
export interface Transitions {
  /** @throws transitionRunning */
  begin(work: TransitionWork): void
  /** What is under way, or how the last one ended. */
  current(): FleetStatus['transition']
  /** Resolves when the daemon's parts have to go down for a change. */
  ready(): Promise<void>
  /** Makes the change that is ready; what goes wrong is in `current`. */
  perform(): Promise<void>
  /** Gives up what is being prepared; the daemon ends. */
  stop(): void
}

/** No change is under way. */
export function createTransitions({ log }: { log: Log }): Transitions {
  const stopping = new AbortController()
  let current: FleetStatus['transition']
  let pending: TransitionWork | undefined
  let announce = () => {}
  let announced = new Promise<void>(resolve => {
    announce = resolve
  })

  const say =
    (kind: Transition) =>
    (message: string): void => {
      current = { kind, state: 'running', message }
      log.info({ kind }, message)
    }
  const fail = (kind: Transition, error: unknown): void => {
    current = { kind, state: 'failed', message: messageOf(error) }
    log.error({ kind, error: messageOf(error) }, 'the change did not succeed')
  }
  const prepare = async (work: TransitionWork): Promise<void> => {
    try {
      await work.prepare?.(say(work.kind), stopping.signal)
      pending = work
      announce()
    } catch (error) {
      fail(work.kind, error)
    }
  }

  return {
    begin(work) {
      if (current?.state === 'running') throw failure('transitionRunning', { kind: current.kind })
      say(work.kind)(work.message)
      void prepare(work)
    },
    current: () => current,
    ready: () => announced,
    async perform() {
      const work = pending
      pending = undefined
      announced = new Promise<void>(resolve => {
        announce = resolve
      })
      if (work === undefined) return
      try {
        await work.change(say(work.kind))
        current = { kind: work.kind, state: 'done', message: 'done' }
      } catch (error) {
        fail(work.kind, error)
      }
    },
    stop: () => stopping.abort(),
  }
}
