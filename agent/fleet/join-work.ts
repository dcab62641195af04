import type { Clock } from '../../base/clock.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import { startDiscovery } from '../../cluster/peers/discovery.ts'
import type { Config } from '../config.ts'
import { ownVersion } from '../host-controller.ts'
import { joinFleet } from '../membership/join-fleet.ts'
import { ownAddress } from './address.ts'
import { setLevelAside } from './level-aside.ts'
import type { TransitionWork } from './transitions.ts'

/** Which host joins, by which token. */
export interface JoinWorkInit {
  config: Config
  token: string
  /** Asked when no machine can come any more; throws why the host may not join. */
  check(): Promise<void>
}

/** What joining needs. */
export interface JoinWorkComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
}

/** Joins while the host still serves as a single one; then its parts start anew as a member's. */
export function joinWork(
  { config, token, check }: JoinWorkInit,
  components: JoinWorkComponents,
): TransitionWork {
  const address = ownAddress(config)
  const { rack } = config.fleet
  return {
    kind: 'join',
    message: 'looking for a host of the fleet',
    async prepare(say, signal) {
      await check()
      const discovery = await startDiscovery({ address: address.host }, components)
      try {
        const init = {
          ...{ dataDir: config.dataDir, machineIdFile: config.machineIdFile },
          name: config.hostName,
          address,
          ...(rack !== undefined && { rack }),
          version: ownVersion(),
          token,
          discover: discovery.discover,
          onWaiting: () => say(`waiting for \`macfleet host approve ${config.hostName}\``),
        }
        await joinFleet(init, components, signal)
      } finally {
        await discovery.stop()
      }
    },
    change: () => setLevelAside(config.dataDir),
  }
}
