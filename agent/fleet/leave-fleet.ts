import { join } from 'node:path'
import { type Clock, sleep } from '../../base/clock.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import type { Config } from '../config.ts'
import { endProcess } from '../etcd/end-etcd.ts'
import { openEtcdFolder } from '../etcd/etcd-folder.ts'
import { etcdProcessName } from '../etcd/etcd-name.ts'
import { keepGuardian } from '../guardian-keeper.ts'
import { discardFleetFolder } from '../membership/folder-files.ts'
import { setLevelAside } from './level-aside.ts'
import type { TransitionWork } from './transitions.ts'
import type { Voters } from './voters.ts'

/** Which host leaves. */
export interface LeaveFleetInit {
  config: Config
  voters: Voters
  fleet: { identity: { name: string } }
}

/** What leaving needs. */
export interface LeaveFleetComponents {
  clock: Clock
  log: Log
  limits: Limits
}

/** Others take over the voter meanwhile; with nobody left to do it, there is nobody to wait for. */
const handoverMs = 60_000
const lookMs = 500

/**
 * Makes a single host without machines of a host of a fleet.
 * @param giveUp takes it out of the member list
 */
export function leaveFleet(
  { config, voters, fleet }: LeaveFleetInit,
  components: LeaveFleetComponents,
  giveUp: () => Promise<void>,
): TransitionWork {
  const { clock, log } = components
  const { name } = fleet.identity
  return {
    kind: 'leave',
    message: 'leaving the member list',
    async prepare(say, signal) {
      await giveUp()
      const untilMs = clock.monotonicMs() + handoverMs
      while (voters.isVoter(name) && clock.monotonicMs() < untilMs) {
        say('waiting until another host holds the store in its place')
        voters.supervisor.wake()
        await sleep(clock, lookMs, signal)
      }
    },
    async change(say) {
      say('becoming a single host')
      const guardian = await keepGuardian(config, components)
      try {
        await guardian.endLease()
        await endProcess(etcdProcessName, guardian, clock)
      } finally {
        guardian.close()
      }
      await openEtcdFolder(join(config.dataDir, 'etcd'), clock).retire()
      await setLevelAside(config.dataDir)
      await discardFleetFolder(config.dataDir)
      log.info({}, 'this host has left its fleet')
    },
  }
}
