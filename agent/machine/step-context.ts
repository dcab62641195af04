import { failure } from '../../base/errors.ts'
import type { Turns } from '../../base/turns.ts'
import type { HostPlacements } from '../../cluster/fleet/host-placements.ts'
import type { MachineContext } from './machine-context.ts'
import type { MachineMetrics } from './metrics.ts'
import type { ProcessBook } from './process-book.ts'
import type { GuestRecord } from './record.ts'
import type { Tracked } from './tracked.ts'

/** What the steps share with the controller. */
export interface StepContext extends Omit<MachineContext, 'metrics'> {
  /** The guardian's processes, as they are known. */
  processes: ProcessBook
  metrics: MachineMetrics
  /** Users and ports are given to one guest at a time, or two could be given the same. */
  choosing: Turns
  placements: HostPlacements
  /** The records of all guests of this host. */
  records(): GuestRecord[]
  /** Has this machine looked at again. */
  wake(): void
  /** Has those looked at again that could not start. */
  wakeHindered(): void
}

/** Ends QEMU at once. What its guest wrote and flushed is in the file already. */
export async function killGuest(
  { uid }: Pick<Tracked, 'uid'>,
  { guardian, processes }: Pick<StepContext, 'guardian' | 'processes'>,
): Promise<void> {
  const process = processes.get(uid)
  if (process === undefined || process.ended !== undefined) return
  if (process.identity === undefined) {
    // Another daemon asked for its start and died; who it is comes with the next list.
    throw failure('guardianProcessNotFound', { name: uid })
  }
  await guardian.signal(uid, 'SIGKILL', process.identity)
}
