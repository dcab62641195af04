import type { Command } from 'commander'
import { preciseTimestamp } from '../../../base/clock.ts'
import type { Resource } from '../../../resources/kind.ts'
import type { Invocation } from '../invocation.ts'
import { asMachine, judgeReady } from '../machine.ts'
import { definePower } from '../power.ts'
import type { Judge } from '../wait.ts'

/** As in resources/virtual-machine.ts, whose schemas take longer to load; restart.test.ts compares. */
export const startedAt = 'macfleet.dev/started-at'

/** `macfleet start`: also what starts a machine again whose guest powered itself off. */
export function define(command: Command, invocation: Invocation): void {
  definePower(command, invocation, {
    verb: 'start',
    done: 'told to start',
    patch: ({ clock }) => ({
      metadata: { annotations: { [startedAt]: preciseTimestamp(clock) } },
      spec: { powerState: 'Running' },
    }),
    wanted: 'Ready',
    judgeAfter: judgeStarted,
  })
}

/** An end that was there before the start says nothing about the start. */
function judgeStarted(patched: Resource): Judge {
  const before = asMachine(patched).status?.lastExit?.time
  return object => {
    const verdict = judgeReady(object)
    if (verdict.is !== 'failed' || object === undefined) return verdict
    const { status, metadata } = asMachine(object)
    const isOld = metadata.deletionTimestamp === undefined && status?.lastExit?.time === before
    return isOld && before !== undefined ? { is: 'waiting', state: verdict.state } : verdict
  }
}
