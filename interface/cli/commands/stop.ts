import type { Command } from 'commander'
import type { Invocation } from '../invocation.ts'
import { judgePhase } from '../machine.ts'
import { definePower } from '../power.ts'

/** `macfleet stop`. */
export function define(command: Command, invocation: Invocation): void {
  definePower(command, invocation, {
    verb: 'stop',
    done: 'told to stop',
    patch: () => ({ spec: { powerState: 'Stopped' } }),
    wanted: 'Stopped',
    judgeAfter: () => judgePhase('Stopped'),
  })
}
