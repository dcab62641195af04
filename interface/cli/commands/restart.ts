import type { Command } from 'commander'
import { preciseTimestamp } from '../../../base/clock.ts'
import type { Resource } from '../../../resources/kind.ts'
import type { Invocation } from '../invocation.ts'
import { asMachine, judgeReady } from '../machine.ts'
import { definePower } from '../power.ts'
import type { Judge } from '../wait.ts'

/** As in resources/virtual-machine.ts, whose schemas take longer to load; restart.test.ts compares. */
export const restartedAt = 'macfleet.dev/restarted-at'

/** `macfleet restart`. */
export function define(command: Command, invocation: Invocation): void {
  definePower(command, invocation, {
    verb: 'restart',
    done: 'told to restart',
    patch: ({ clock }) => ({
      metadata: { annotations: { [restartedAt]: preciseTimestamp(clock) } },
      spec: { powerState: 'Running' },
    }),
    wanted: 'Ready',
    judgeAfter: judgeRestarted,
  })
}

/** Ready counts when it came after the restart: the guest of before is ready too, for a moment. */
function judgeRestarted(patched: Resource): Judge {
  const before = readySince(patched)
  let wasDown = before === undefined
  return object => {
    const verdict = judgeReady(object)
    if (verdict.is !== 'reached' || object === undefined) {
      wasDown = true
      return verdict
    }
    if (wasDown || readySince(object) !== before) return verdict
    return { is: 'waiting', state: 'the guest is shutting down' }
  }
}

function readySince(object: Resource): string | undefined {
  const conditions = asMachine(object).status?.conditions ?? []
  const ready = conditions.find(({ type, status }) => type === 'Ready' && status === 'True')
  return ready?.lastTransitionTime
}
