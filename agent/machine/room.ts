import { takesRoom } from '../../cluster/fleet/placement.ts'
import type { Amounts } from '../../resources/host.ts'
import type { StepContext } from './step-context.ts'

/** What giving room back and asking for it need. */
export type RoomContext = Pick<
  StepContext,
  'placements' | 'processes' | 'reservations' | 'wakeHindered'
>

/** What is to start again keeps its room; what rests does not need it. */
export async function giveRoomBack(uid: string, context: RoomContext): Promise<void> {
  if (context.processes.get(uid) !== undefined) return
  const released = context.reservations.release(uid)
  const placement = context.placements.of(uid)
  if (placement !== undefined && takesRoom(placement)) await context.placements.rest(uid)
  if (released) context.wakeHindered()
}

/**
 * Asks for room for a machine that does not run. While it waits it has none: what it was promised
 * before is the leader's to give, and whoever gets it has to find it free here.
 */
export async function askForRoom(
  uid: string,
  request: Amounts,
  { placements, reservations, wakeHindered }: Omit<RoomContext, 'processes'>,
): Promise<void> {
  const asked = await placements.wake(uid, request)
  if (asked && reservations.release(uid)) wakeHindered()
}
