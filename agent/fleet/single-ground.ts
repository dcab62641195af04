import type { Clock } from '../../base/clock.ts'
import type { CommandRunner } from '../../base/command.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import { noFacts } from '../../cluster/fleet/facts.ts'
import { defaultTiming } from '../../cluster/fleet/timing.ts'
import { openLevelStore } from '../../cluster/store/level.ts'
import type { Config } from '../config.ts'
import { endProcess } from '../etcd/end-etcd.ts'
import { etcdProcessName } from '../etcd/etcd-name.ts'
import { readBootId } from '../guardian/registry.ts'
import { keepGuardian } from '../guardian-keeper.ts'
import { holdSingleHostLease } from '../host-lease-single.ts'
import type { Undo } from '../undo.ts'
import { levelFolder } from './beginning.ts'
import type { Ground } from './ground.ts'
import { joinByFile } from './join-by-file.ts'
import { singleHostName } from './single-name.ts'
import { singleOperations } from './single-operations.ts'
import type { Transitions } from './transitions.ts'

/** What a single host stands on. */
export interface SingleGroundComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
  run: CommandRunner
  transitions: Transitions
}

/** Opens the ground of a host that is in no fleet: LevelDB, and nobody else. */
export async function openSingleGround(
  config: Config,
  components: SingleGroundComponents,
  undo: Undo,
): Promise<Ground> {
  const store = await openLevelStore({ folder: levelFolder(config.dataDir) }, components)
  undo.add(() => store.close())
  // After the store, which only one daemon can have: a second one is told so at once.
  const guardian = await keepGuardian(config, components)
  undo.add(() => guardian.close())
  // Left by a fleet that this host has left, or that did not come to be.
  await endProcess(etcdProcessName, guardian, components.clock)
  const host = await singleHostName(config.hostName, { ...components, store })
  const identity = { host, hostId: 'single', bootId: readBootId() }
  const lease = await holdSingleHostLease(identity, { store, guardian })
  undo.add(() => lease.stop())
  const operations = singleOperations({ ...config, hostName: host }, { ...components, store })
  undo.add(joinByFile(config, operations, components))
  return {
    host,
    store,
    freshStore: store,
    staleSince: () => undefined,
    guardian: lease.guardian,
    lease,
    timing: defaultTiming,
    recovery: () => undefined,
    fenced: false,
    address: undefined,
    operations,
    transfers: undefined,
    facts: noFacts,
    tellFacts: () => {},
    lead: async () => {},
    async checkHealth() {
      await store.revision()
    },
  }
}
