import type { Command } from 'commander'
import type { Invocation } from '../invocation.ts'
import { judgeReady } from '../machine.ts'
import { definePower } from '../power.ts'

/** `macfleet resume`. */
export function define(command: Command, invocation: Invocation): void {
  definePower(command, invocation, {
    verb: 'resume',
    done: 'told to resume',
    patch: () => ({ spec: { powerState: 'Running' } }),
    wanted: 'Ready',
    judgeAfter: () => judgeReady,
  })
}
