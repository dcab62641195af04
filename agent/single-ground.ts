import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { failure } from '../base/errors.ts'
import type { Limits } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import { noFacts } from '../cluster/fleet/facts.ts'
import { defaultTiming } from '../cluster/fleet/timing.ts'
import { openLevelStore } from '../cluster/store/level.ts'
import type { Store } from '../cluster/store/store.ts'
import type { FleetOperations } from '../interface/api/fleet-operations.ts'
import type { Config } from './config.ts'
import { explainOperation } from './explain-operation.ts'
import type { Ground } from './ground.ts'
import { readBootId } from './guardian/registry.ts'
import { keepGuardian } from './guardian-keeper.ts'
import { ownVersion } from './host-controller.ts'
import { holdSingleHostLease } from './host-lease-single.ts'
import type { Transitions } from './transitions.ts'
import type { Undo } from './undo.ts'

/** What a single host stands on. */
export interface SingleGroundComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
  transitions: Transitions
}

/** Opens the ground of a host that is in no fleet: LevelDB, and nobody else. */
export async function openSingleGround(
  config: Config,
  components: SingleGroundComponents,
  undo: Undo,
): Promise<Ground> {
  const store = await openLevelStore({ folder: join(config.dataDir, 'store') }, components)
  undo.add(() => store.close())
  // After the store, which only one daemon can have: a second one is told so at once.
  const guardian = await keepGuardian(config, components)
  undo.add(() => guardian.close())
  const identity = { host: config.hostName, hostId: 'single', bootId: readBootId() }
  const lease = await holdSingleHostLease(identity, { store, guardian })
  undo.add(() => lease.stop())
  return {
    store,
    guardian: lease.guardian,
    lease,
    facts: noFacts,
    timing: defaultTiming,
    fenced: false,
    address: undefined,
    operations: singleOperations(config, store, components),
    async checkHealth() {
      await store.revision()
    },
  }
}

/** What an operator can do with a single host: make a fleet of it, or let it join one. */
function singleOperations(
  config: Config,
  store: Store,
  { clock, transitions }: SingleGroundComponents,
): FleetOperations {
  const refuse = (what: string) => async (): Promise<never> => {
    throw failure('notInFleet', { what })
  }
  return {
    async status() {
      const transition = transitions.current()
      return {
        mode: 'single',
        host: config.hostName,
        version: ownVersion(),
        leader: config.hostName,
        members: [],
        store: { kind: 'level', isAvailable: true },
        ...(transition && { transition }),
        warnings: [],
      }
    },
    init: refuse('making a fleet'),
    join: refuse('joining'),
    leave: refuse('leaving'),
    createToken: refuse('a join token'),
    listTokens: refuse('a list of join tokens'),
    revokeToken: refuse('revoking a token'),
    approveHost: refuse('approving a host'),
    removeHost: refuse('removing a host'),
    forgetHost: refuse('forgetting a host'),
    rotateAuthorities: refuse('replacing the authorities'),
    backup: refuse('a backup'),
    restore: refuse('a restore'),
    explain: explainOperation({ fenced: false }, { store, clock, facts: noFacts }),
  }
}
