import { failure } from '../../base/errors.ts'
import type { Guard } from '../../cluster/objects.ts'
import { type VirtualMachine, virtualMachineKind } from '../../resources/virtual-machine.ts'
import type { Transitions } from './transitions.ts'

/**
 * Lets no machine come while the host turns into another one whose store knows nothing of it: it
 * may wait for its approval for hours.
 */
export function joiningGuard(transitions: Pick<Transitions, 'current'>): Guard<VirtualMachine> {
  return {
    kind: virtualMachineKind,
    async create() {
      const current = transitions.current()
      if (current?.state !== 'running' || current.kind === 'init') return []
      throw failure('transitionRunning', { kind: current.kind })
    },
  }
}
