import { createHash } from 'node:crypto'

/** What fleets are told apart by in public. It says nothing of the fleet. */
export function fleetTagOf(fleetId: string): string {
  return createHash('sha256').update(`macfleet fleet ${fleetId}`).digest('hex').slice(0, 16)
}
