import { defaultPolicy } from '../../cluster/scheduler/fleet-state.ts'
import type { Policy } from '../../cluster/scheduler/types.ts'
import type { Config } from '../config.ts'

/** How machines are placed, as this host is configured: should it lead, or explain. */
export function policyOf({ placement }: Pick<Config, 'placement'>): Policy {
  return { ...defaultPolicy, room: placement }
}
