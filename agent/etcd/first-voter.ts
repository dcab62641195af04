import { type Clock, sleep } from '../../base/clock.ts'
import { failure, messageOf } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import { type Random, randomUuid } from '../../base/random.ts'
import type { EtcdAdmin } from '../../cluster/etcd/admin.ts'
import type { EtcdFolder, MemberIdentity } from './etcd-folder.ts'
import type { EtcdProcess } from './etcd-process.ts'

/** The host that is to be the first voter. */
export interface FirstVoterInit {
  /** The host's name. */
  name: string
  peerUrl: string
  clientUrl: string
  /** Until it answers; etcd itself takes about a second. */
  timeoutMs: number
}

/** What starting it needs. */
export interface FirstVoterComponents {
  process: EtcdProcess
  folder: EtcdFolder
  admin: Pick<EtcdAdmin, 'status'>
  clock: Clock
  random: Random
  log: Log
}

const lookMs = 50

/**
 * Starts an empty etcd with this host as its only voter: for a single host that becomes a fleet,
 * and for a restore. Only while etcd's data here is not the truth: what there is, for example from
 * a try that was interrupted, is set aside. The supervisor must not run meanwhile.
 * @returns which member of which cluster it is; the cluster's id is unlike any before
 * @throws unavailable when etcd does not start, with its last words in the log
 */
export async function startFirstVoter(
  { name, peerUrl, clientUrl, timeoutMs }: FirstVoterInit,
  { process, folder, admin, clock, random, log }: FirstVoterComponents,
): Promise<MemberIdentity> {
  await process.stop()
  await folder.retire()
  const initial = {
    state: 'new' as const,
    members: [{ name, peerUrl }],
    token: randomUuid(random),
  }
  const untilMs = clock.monotonicMs() + timeoutMs
  let detail = 'it did not start'
  while (clock.monotonicMs() < untilMs) {
    try {
      if (await process.ensure(initial)) {
        const { memberId, clusterId, leaderId } = await admin.status(clientUrl)
        if (leaderId === memberId) {
          await folder.writeIdentity({ memberId, clusterId })
          return { memberId, clusterId }
        }
        detail = 'it does not lead itself'
      }
    } catch (error) {
      detail = messageOf(error)
      log.debug({ error: detail }, 'the first voter is not ready yet')
    }
    await sleep(clock, lookMs)
  }
  const advice = `${folder.log} and ${folder.stderr} have more`
  throw failure('unavailable', { what: 'etcd on this host', detail, advice })
}
