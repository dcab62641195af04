import { type Clock, sleep } from '../../base/clock.ts'
import { isFailure, messageOf } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import { createWorkQueue } from '../../base/work-queue.ts'
import type { EtcdAdmin, EtcdMember } from '../../cluster/etcd/admin.ts'
import type { Guardian } from '../guardian/client.ts'
import type { EtcdFolder } from './etcd-folder.ts'
import { etcdProcessName } from './etcd-name.ts'
import type { EtcdProcess } from './etcd-process.ts'
import { type SupervisorStep, supervise } from './supervise.ts'

/** The host whose member is looked after. */
export interface EtcdSupervisorInit {
  /** The host's name, also that of its member. */
  name: string
  peerUrl: string
  /** Of its own member. */
  clientUrl: string
  /** etcd's cluster of this fleet and era (`EtcdStatus.clusterId`), where it is known. */
  clusterId?: string
  /** Between two looks at the member list. */
  intervalMs: number
  /**
   * How long the voters wait for each other, one after the other, when all are to be started anew
   * because the CA has changed; 5 s by default, longer than etcd takes to start and elect.
   */
  restartSlotMs?: number
  /** Told every list that the majority agreed to: the endpoints are worth keeping on disk. */
  onMembers?(members: readonly EtcdMember[]): void
}

/** What looking after it needs. */
export interface EtcdSupervisorComponents {
  process: EtcdProcess
  folder: EtcdFolder
  guardian: Pick<Guardian, 'onExit' | 'onConnected'>
  admin: Pick<EtcdAdmin, 'members' | 'status' | 'remove'>
  clock: Clock
  log: Log
}

/** Runs etcd on this host exactly when etcd's own member list names it. */
export interface EtcdSupervisor {
  /** Looks again now. */
  wake(): void
  /** Lets go; etcd runs on. */
  stop(): Promise<void>
}

const lane = 'etcd'
const rejectionsLeast = 2
/** Voters that find all well at the same moment look again, each so much later than the one before. */
const apartMs = 700

/** Begins to look: at once, every `intervalMs`, and when etcd or the guardian ended. */
export function startEtcdSupervisor(
  init: EtcdSupervisorInit,
  components: EtcdSupervisorComponents,
): EtcdSupervisor {
  const { process, folder, guardian, admin, log } = components
  let listed: readonly EtcdMember[] | undefined
  /** How often in a row the list said that its data is of no use. */
  let rejections = 0

  const stopping = new AbortController()
  const turn = createTurn(init, () => listed, components, stopping.signal)

  const list = async (): Promise<readonly EtcdMember[] | undefined> => {
    try {
      const members = await admin.members()
      init.onMembers?.(members)
      return members
    } catch (error) {
      log.debug({ error: messageOf(error) }, "nobody tells etcd's members")
      return undefined
    }
  }
  const decide = async (members: readonly EtcdMember[] | undefined): Promise<SupervisorStep> => {
    // In this order: a member is on the list as started only after its data is there.
    const hasData = await folder.hasData()
    const identity = hasData ? await folder.identity() : undefined
    const runs = await process.runs()
    const { peerUrl, clusterId } = init
    return supervise({ peerUrl, hasData, runs, identity, members, clusterId })
  }
  const perform = async (step: SupervisorStep): Promise<void> => {
    if (step.kind === 'warn') log.error({ peerUrl: init.peerUrl }, step.why)
    if (step.kind === 'none' || step.kind === 'warn') return
    if (step.kind === 'start') {
      if (await process.ensure(undefined, turn.hasCome)) await learnIdentity()
    } else if (step.kind === 'begin') {
      await process.ensure({ state: 'existing', members: initialMembers(step), token: '' })
    } else if (step.kind === 'retire') {
      log.warn({ why: step.why }, "this host's etcd is ended and its data set aside")
      await process.stop()
      await folder.retire()
    } else await withdraw(step.id)
  }
  const learnIdentity = async (): Promise<void> => {
    if ((await folder.identity()) !== undefined) return
    try {
      const { memberId, clusterId } = await admin.status(init.clientUrl)
      await folder.writeIdentity({ memberId, clusterId })
    } catch (error) {
      log.debug({ error: messageOf(error) }, 'etcd does not say yet which member it is')
    }
  }
  /** Its process, should it run on files that were deleted, ends by itself once it is removed. */
  const withdraw = async (id: string): Promise<void> => {
    log.error({ id }, "the data of this host's etcd is gone: the member is taken off the list")
    try {
      await admin.remove(id)
    } catch (error) {
      if (!isFailure(error, 'etcdMemberUnknown')) throw error
    }
    await process.stop()
    await folder.retire()
  }
  const initialMembers = ({ members }: { members: readonly EtcdMember[] }) =>
    members.flatMap(({ id, name, peerUrls }) =>
      peerUrls.map(peerUrl => ({
        name: peerUrl === init.peerUrl ? init.name : name || id,
        peerUrl,
      })),
    )

  const queue = createWorkQueue(
    {
      async handle() {
        // Before anybody is asked: with most voters down, asking takes its time.
        if (listed === undefined) await perform(await decide(undefined))
        listed = await list()
        const step = await decide(listed)
        rejections = step.kind === 'retire' ? rejections + 1 : 0
        // Setting data aside costs a voter: one list alone is not believed.
        if (step.kind !== 'retire' || rejections >= rejectionsLeast) await perform(step)
        return { againMs: init.intervalMs }
      },
      backoff: { firstMs: 500, mostMs: 3_000 },
    },
    components,
  )
  const ends = [
    guardian.onConnected(() => queue.add(lane)),
    guardian.onExit(({ name }) => {
      if (name !== etcdProcessName) return
      listed = undefined
      queue.add(lane)
    }),
  ]
  queue.add(lane)
  return {
    wake: () => queue.add(lane),
    async stop() {
      stopping.abort()
      for (const end of ends) end()
      await queue.stop()
    },
  }
}

/** Whose turn it is to be started anew: a voter at a time, and only while all others answer. */
function createTurn(
  { peerUrl, restartSlotMs = 5_000 }: EtcdSupervisorInit,
  members: () => readonly EtcdMember[] | undefined,
  { admin, clock }: EtcdSupervisorComponents,
  stopping: AbortSignal,
): { hasCome(): Promise<boolean> } {
  let askedMs: number | undefined
  const answers = async ({ clientUrls }: EtcdMember): Promise<boolean> => {
    try {
      return (await admin.status(clientUrls[0] ?? '')).leaderId !== undefined
    } catch {
      return false
    }
  }
  return {
    async hasCome() {
      // Nothing is agreed without us either.
      const all = members()
      if (all === undefined) return true
      const voters = all.filter(({ isLearner }) => !isLearner)
      const urls = voters.flatMap(({ peerUrls }) => peerUrls).sort()
      const nowMs = clock.monotonicMs()
      const place = Math.max(0, urls.indexOf(peerUrl))
      askedMs ??= nowMs
      if (nowMs - askedMs < place * restartSlotMs) return false
      const others = voters.filter(({ peerUrls }) => !peerUrls.includes(peerUrl))
      const areWell = async () => (await Promise.all(others.map(answers))).every(Boolean)
      if (!(await areWell())) return false
      // Two that stop together are one too many of three, and leases end while nobody leads.
      await sleep(clock, place * apartMs, stopping).catch(() => {})
      if (stopping.aborted || !(await areWell())) return false
      askedMs = undefined
      return true
    },
  }
}
