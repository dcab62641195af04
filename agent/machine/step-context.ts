import type { GuardedProcess } from '../guardian/protocol.ts'
import type { MachineContext } from './machine-context.ts'
import type { GuestRecord } from './record.ts'
import type { Tracked } from './tracked.ts'

/** What the steps share with the controller. */
export interface StepContext extends MachineContext {
  /** The guardian's processes by name, as they are known. */
  processes: Map<string, GuardedProcess>
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
  if (process?.identity === undefined || process.ended !== undefined) return
  await guardian.signal(uid, 'SIGKILL', process.identity)
}
