import { join } from 'node:path'
import { type Clock, sleep, withTimeout } from '../../base/clock.ts'
import { failure, isFailure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import { openEtcdStore } from '../../cluster/store/etcd.ts'
import type { Config } from '../config.ts'
import { endProcess } from '../etcd/end-etcd.ts'
import { etcdProcessName } from '../etcd/etcd-name.ts'
import type { Guardian } from '../guardian/client.ts'
import { keepGuardian } from '../guardian-keeper.ts'
import type { FleetFolder } from '../membership/fleet-folder.ts'
import { discardFleetFolder } from '../membership/folder-files.ts'
import { ownAddress } from './address.ts'
import { createEtcdParts, type EtcdParts } from './etcd-parts.ts'
import { setGuestsAside, setLevelAside } from './level-aside.ts'
import { rememberEra } from './seen-eras.ts'
import { type Leaving, signOff } from './sign-off.ts'
import { spendToken } from './spent-token.ts'
import type { TransitionWork } from './transitions.ts'

/** Which host leaves. */
export interface LeaveFleetInit {
  config: Config
  fleet: FleetFolder
  how: Leaving
  /** Done while the host still serves; it fails freely. */
  prepare?(): Promise<void>
}

/** What leaving needs. */
export interface LeaveFleetComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
}

/** A store that is there answers within this; one that is not is given up when leaving is forced. */
const signOffMs = 15_000
/** Others take over the voter meanwhile. */
const handoverMs = 60_000
const lookMs = 500

/**
 * Makes a single host without machines of a host of a fleet. Its images stay. What fails before the
 * member list is without it leaves a host of the fleet; what is killed later is taken up by the
 * next start, which finds that the host was removed.
 */
export function leaveFleet(init: LeaveFleetInit, components: LeaveFleetComponents): TransitionWork {
  const { prepare, how } = init
  return {
    kind: 'leave',
    message: how === 'removed' ? 'this host was removed from its fleet' : 'leaving the fleet',
    ...(prepare !== undefined && { prepare: () => prepare() }),
    async change(say) {
      const guardian = await keepGuardian(init.config, components)
      try {
        await leave(init, { ...components, guardian }, say)
      } finally {
        guardian.close()
      }
    },
  }
}

type Components = LeaveFleetComponents & { guardian: Guardian }

async function leave(
  { config, fleet, how }: LeaveFleetInit,
  components: Components,
  say: (message: string) => void,
): Promise<void> {
  const { clock, guardian, log } = components
  const { dataDir, runDir } = config
  const address = ownAddress(config)
  const etcd = await createEtcdParts({ config, fleet, address }, components)
  try {
    // In this order nothing runs here any more when the others hear that it may run elsewhere.
    await guardian.endLease()
    say('ending what runs here')
    await endGuests(components)
    say('leaving the member list')
    const isTold = await tellFleet({ fleet, etcd, how }, components)
    if (isTold) await untilNoVoter({ etcd, how }, components, say)
    say('becoming a single host')
    await endProcess(etcdProcessName, guardian, clock)
    await etcd.folder.retire()
  } finally {
    etcd.connection.close()
  }
  await rememberEra(dataDir, fleet.known().fleet)
  await spendToken(config)
  await setGuestsAside(dataDir, join(runDir, 'guests'), log)
  await setLevelAside(dataDir)
  await discardFleetFolder(dataDir)
  log.info({}, 'this host has left its fleet')
}

/** By the guardian's word: it knows of every guest, whatever the store says. */
async function endGuests({ guardian, clock, log }: Components): Promise<void> {
  for (const { name } of await guardian.list()) {
    if (name === etcdProcessName) continue
    log.warn({ name }, 'a guest is ended because its host leaves the fleet')
    await endProcess(name, guardian, clock)
  }
}

/** @returns whether the fleet was told. @throws what the store throws, unless leaving is forced */
async function tellFleet(
  { fleet, etcd, how }: { fleet: FleetFolder; etcd: EtcdParts; how: Leaving },
  components: LeaveFleetComponents,
): Promise<boolean> {
  const { clock, log } = components
  const { revisionBase } = fleet.known().fleet
  const store = openEtcdStore({ connection: etcd.connection, revisionBase }, components)
  const tooLate = () => failure('timeout', { what: 'the fleet', timeoutMs: signOffMs })
  try {
    const { name, hostId } = fleet.identity
    const asked = signOff({ name, hostId, how }, { ...components, store })
    await withTimeout(clock, signOffMs, asked, tooLate)
    return true
  } catch (error) {
    if (how !== 'forced' || isFailure(error, 'lastHostOfFleet')) throw error
    log.error({ error: messageOf(error) }, 'this host leaves though its fleet can not be told')
    return false
  } finally {
    await store.close().catch(() => {})
  }
}

/**
 * Waits until another host votes in its place: ended before that, its etcd could be the one vote
 * that the others lack, or all there is.
 * @throws unavailable when nobody takes over; the host goes on as a voter then
 */
async function untilNoVoter(
  { etcd, how }: { etcd: EtcdParts; how: Leaving },
  { clock, log }: Components,
  say: (message: string) => void,
): Promise<void> {
  if (!(await etcd.folder.hasData())) return
  say('waiting until another host holds the store in its place')
  const untilMs = clock.monotonicMs() + handoverMs
  let detail = 'it is a voter still'
  while (clock.monotonicMs() < untilMs) {
    try {
      const members = await etcd.admin.members()
      if (!members.some(({ peerUrls }) => peerUrls.includes(etcd.peerUrl))) return
    } catch (error) {
      detail = messageOf(error)
      // Its own member ends when it is put out, and then others have to be asked.
      log.debug({ error: detail }, "etcd's members are not known")
    }
    await sleep(clock, lookMs)
  }
  if (how === 'forced') return log.error({ detail }, 'nobody took over the voter of this host')
  const advice = 'Bring other hosts back; it goes on by itself'
  throw failure('unavailable', { what: 'a host that takes over the store', detail, advice })
}
