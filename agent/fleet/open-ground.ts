import type { Config } from '../config.ts'
import { openFleetFolder } from '../membership/fleet-folder.ts'
import type { Undo } from '../undo.ts'
import { finishBeginning } from './beginning.ts'
import type { FleetGroundComponents } from './fleet-ground.ts'
import type { Ground } from './ground.ts'

/**
 * Opens what this host stands on: a single host's store, or its place in a fleet. Each is loaded
 * only where it is needed: libp2p and gRPC take more memory than all the rest.
 */
export async function openGround(
  config: Config,
  components: FleetGroundComponents,
  undo: Undo,
): Promise<Ground> {
  const { dataDir, machineIdFile } = config
  await finishBeginning(dataDir, components.log)
  const fleet = await openFleetFolder({ dataDir, machineIdFile })
  if (fleet === undefined) {
    const { openSingleGround } = await import('./single-ground.ts')
    return await openSingleGround(config, components, undo)
  }
  const { openFleetGround } = await import('./fleet-ground.ts')
  return await openFleetGround(config, fleet, components, undo)
}
