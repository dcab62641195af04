import type { Command } from 'commander'
import type { Invocation } from '../invocation.ts'
import { judgePhase } from '../machine.ts'
import { definePower } from '../power.ts'

/** `macfleet suspend`. */
export function define(command: Command, invocation: Invocation): void {
  definePower(command, invocation, {
    verb: 'suspend',
    done: 'told to suspend',
    patch: () => ({ spec: { powerState: 'Suspended' } }),
    wanted: 'Suspended',
    judgeAfter: () => judgePhase('Suspended'),
  })
}
