import type { Config } from './config.ts'
import type { Ground } from './ground.ts'
import { openSingleGround, type SingleGroundComponents } from './single-ground.ts'
import type { Undo } from './undo.ts'

/** Opens what this host stands on: a single host's store, or its place in a fleet. */
export async function openGround(
  config: Config,
  components: SingleGroundComponents,
  undo: Undo,
): Promise<Ground> {
  return await openSingleGround(config, components, undo)
}
