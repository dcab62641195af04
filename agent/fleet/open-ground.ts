import type { Config } from '../config.ts'
import { checkDataFolder } from '../membership/data-folder.ts'
import { openFleetFolder } from '../membership/fleet-folder.ts'
import type { Undo } from '../undo.ts'
import { finishBeginning } from './beginning.ts'
import type { FleetGroundComponents } from './fleet-ground.ts'
import type { Ground } from './ground.ts'

/**
 * Opens what this host stands on: a single host's store, or its place in a fleet. Each is loaded
 * only where it is needed: libp2p and gRPC take more memory than all the rest.
 * @throws adoptNeeded when the data folder is that of another machine; nothing was started then
 */
export async function openGround(
  config: Config,
  components: FleetGroundComponents,
  undo: Undo,
): Promise<Ground> {
  const { dataDir, machineIdFile } = config
  const bind = await checkDataFolder({ dataDir, machineIdFile }, components)
  await finishBeginning(dataDir, components.log)
  const fleet = await openFleetFolder({ dataDir, machineIdFile })
  await bind()
  if (fleet === undefined) {
    const { openSingleGround } = await import('./single-ground.ts')
    return await openSingleGround(config, components, undo)
  }
  const { openFleetGround } = await import('./fleet-ground.ts')
  return await openFleetGround(config, fleet, components, undo)
}
