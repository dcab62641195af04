import { messageOf } from '../../base/errors.ts'
import { shutDownGuest as shutDown } from '../../kvm/shutdown.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import { killGuest, type StepContext } from './step-context.ts'
import type { Tracked } from './tracked.ts'

/**
 * Begins to shut a guest down and returns: it may take as long as its machine grants it. The end is
 * seen by the guardian, like every other.
 */
export function beginShutdown(
  tracked: Tracked,
  machine: VirtualMachine,
  context: StepContext,
): void {
  const { runtime, uid } = tracked
  if (runtime === undefined) return
  // One that is under way already was more patient than this one may be.
  tracked.stopping?.abort()
  const stopping = new AbortController()
  tracked.stopping = stopping
  const graceSeconds =
    machine.metadata.deletionGracePeriodSeconds ?? machine.spec.terminationGracePeriodSeconds
  tracked.stopByMs = context.clock.monotonicMs() + graceSeconds * 1000
  const init = {
    guest: runtime.guest,
    agent: runtime.agent,
    deadlineMs: graceSeconds * 1000,
    kill: () => killGuest(tracked, context),
    signal: stopping.signal,
  }
  shutDown(init, context)
    .then(outcome => context.log.info({ uid, outcome }, 'guest shut down'))
    .catch(error => {
      if (stopping.signal.aborted) return
      context.log.warn({ uid, error: messageOf(error) }, 'the shutdown failed; it is tried again')
    })
    .finally(() => {
      if (tracked.stopping === stopping) tracked.stopping = undefined
      context.wake()
    })
}
