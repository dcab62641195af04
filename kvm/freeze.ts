import { type Clock, sleep } from '../base/clock.ts'
import { isFailure, messageOf } from '../base/errors.ts'
import type { Limits } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { GuestAgent } from './guest-agent.ts'

/** What freezing a guest's file systems needs. */
export interface FreezeComponents {
  clock: Clock
  log: Log
  limits: Limits
}

/** The part of an agent that freezes. */
export type FreezingAgent = Pick<GuestAgent, 'freeze' | 'thaw' | 'freezeStatus'>

/** A guest whose file systems hold still, or of whom we could not have it. */
export interface Frozen {
  /**
   * Lets them go on, and does not give up soon. Doing it twice is harmless; it never throws.
   * @returns whether they do
   */
  thaw(): Promise<boolean>
  /** Why they do not hold still now; undefined when they do. */
  problem(): Promise<string | undefined>
}

const thawTries = 30
const thawWaitMs = 500
const agentTimeoutMs = 2000

/** Freezes a guest's file systems, if it has an agent that can. Never throws. */
export async function openFrozen(
  agent: FreezingAgent | undefined,
  components: FreezeComponents,
): Promise<Frozen> {
  if (agent === undefined) return unfrozen('no guest agent answers')
  let problem: string | undefined
  // A freeze that we gave up waiting for may still happen: it is undone as one that did.
  let mayBeFrozen = true
  try {
    const count = await agent.freeze({ timeoutMs: components.limits.freezeMs })
    if (count === 0) problem = 'the guest has no file system that can be frozen'
  } catch (error) {
    problem = `its agent did not freeze it: ${messageOf(error)}`
    // Nobody heard it.
    if (isFailure(error, 'agentUnavailable')) mayBeFrozen = false
  }
  return {
    async thaw() {
      if (!mayBeFrozen) return true
      mayBeFrozen = !(await thawGuest(agent, components))
      problem ??= 'it held still for too short a time'
      return !mayBeFrozen
    },
    async problem() {
      if (problem !== undefined) return problem
      // An agent thaws by itself after some time in some systems.
      const status = await agent.freezeStatus({ timeoutMs: agentTimeoutMs }).catch(messageOf)
      return status === 'frozen' ? undefined : `it did not stay frozen: ${status}`
    },
  }
}

async function thawGuest(
  agent: FreezingAgent,
  { clock, log }: Omit<FreezeComponents, 'limits'>,
): Promise<boolean> {
  for (let tries = 1; ; tries++) {
    try {
      await agent.thaw({ timeoutMs: agentTimeoutMs })
      return true
    } catch (error) {
      // An agent that knows no freezing has frozen nothing.
      if (isFailure(error, 'agentRefused')) return true
      if (tries < thawTries) {
        await sleep(clock, thawWaitMs)
        continue
      }
      log.error({ error: messageOf(error) }, 'a guest may still be frozen: its agent is silent')
      return false
    }
  }
}

function unfrozen(problem: string): Frozen {
  return { thaw: async () => true, problem: async () => problem }
}
