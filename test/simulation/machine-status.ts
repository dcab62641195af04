import type { Step } from '../../agent/machine/decide.ts'
import { statusOf } from '../../agent/machine/status.ts'
import type { Tracked } from '../../agent/machine/tracked.ts'
import { timestamp } from '../../base/clock.ts'
import { isFailure } from '../../base/errors.ts'
import type { Objects } from '../../cluster/objects.ts'
import { virtualMachineKind } from '../../resources/virtual-machine.ts'
import type { Actor } from './actor.ts'

/** Tells how a machine is, as agent/machine/controller.ts does. */
export async function tellStatus(
  tracked: Tracked,
  step: Step,
  alive: boolean,
  { objects, actor, host }: { objects: Objects; actor: Actor; host: string },
): Promise<void> {
  const { uid, namespace, name, record, obstacle, runtime } = tracked
  const view = {
    host,
    alive,
    runState: runtime === undefined ? undefined : ('running' as const),
    stopping: tracked.stopping !== undefined || record?.intent !== undefined,
    obstacle,
    willStart: step.kind === 'start' || step.kind === 'wait',
    accelerator: 'kvm' as const,
    address: undefined,
    answered: runtime !== undefined,
    agentConnected: false,
  }
  try {
    await objects.changeStatus(
      virtualMachineKind,
      { namespace, name },
      (_, current) => statusOf(current, tracked.record, view, timestamp(actor.clock)),
      { uid },
    )
  } catch (error) {
    if (!isFailure(error, 'notFound')) throw error
  }
}
