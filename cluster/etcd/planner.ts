import { type Clock, withTimeout } from '../../base/clock.ts'
import { failure, isFailure, messageOf } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import { createWorkQueue } from '../../base/work-queue.ts'
import type { EtcdAdmin, EtcdMember } from './admin.ts'
import { type MemberHealth, maintain } from './maintenance.ts'
import {
  type EtcdSituation,
  type EtcdStep,
  type PlannedHost,
  type PlannedMember,
  type PlanTiming,
  planStep,
} from './plan.ts'

/** One approved host, as the leader knows it now. */
export interface PlannerHost extends Omit<PlannedHost, 'shunned'> {
  /** Where etcd of the others reaches its member, as etcd's list would have it. */
  peerUrl: string
}

/** How etcd's members are kept. */
export interface EtcdPlannerInit {
  votersMost: number
  timing: PlanTiming
  /** Between two looks while all is as wanted; a change is followed by the next look at once. */
  intervalMs: number
  /** A host whose learner came to nothing gets no other for so long. */
  shunMs: number
  /** What one member may take to say how it is. */
  statusTimeoutMs: number
  /** The approved hosts, from what is known already: no question to the store. */
  hosts(): readonly PlannerHost[]
  /** Told every step that was made, for an Event. */
  onStep?(step: EtcdStep, host: string | undefined): void
}

/** What keeping them needs. */
export interface EtcdPlannerComponents {
  admin: EtcdAdmin
  clock: Clock
  log: Log
}

/**
 * Brings etcd's members to what `planStep` wants, one step at a time, and keeps their databases
 * small. Runs on the host that leads. Two that think they lead do no harm: each step is bound to a
 * member's id, etcd takes one learner at a time, and refuses what would lose its quorum.
 */
export function startEtcdPlanner(
  init: EtcdPlannerInit,
  components: EtcdPlannerComponents,
): { stop(): Promise<void> } {
  const { admin, clock, log } = components
  const observed = createObserver(init, clock)
  let changedMs = clock.monotonicMs()

  /** Soon after a change the next is due, often before a look is over; later it never is. */
  const soon = () => {
    const sinceMs = clock.monotonicMs() - changedMs
    return { againMs: Math.min(init.intervalMs, Math.max(soonestMs, sinceMs / 10)) }
  }
  const look = async (): Promise<MemberHealth[]> => {
    const members = await admin.members()
    return Promise.all(members.map(member => healthOf(member)))
  }
  const healthOf = async (member: EtcdMember): Promise<MemberHealth> => {
    const [endpoint] = member.clientUrls
    if (endpoint === undefined) return { member }
    const timeoutMs = init.statusTimeoutMs
    const late = () => failure('timeout', { what: `the status of etcd at ${endpoint}`, timeoutMs })
    try {
      const status = await withTimeout(clock, timeoutMs, admin.status(endpoint), late)
      return { member, endpoint, ...(status.leaderId === undefined ? {} : { status }) }
    } catch (error) {
      log.debug({ endpoint, error: messageOf(error) }, 'a member of etcd does not answer')
      return { member, endpoint }
    }
  }
  /** @returns whether etcd took it */
  const perform = async (step: EtcdStep, situation: EtcdSituation): Promise<boolean> => {
    if (step.kind === 'none') return false
    try {
      await change(step, situation)
    } catch (error) {
      if (!isPassing(error)) throw error
      log.debug({ ...step, error: messageOf(error) }, 'etcd does not take this step yet')
      return false
    }
    return true
  }
  const change = async (step: EtcdStep, { members }: EtcdSituation): Promise<void> => {
    let host: string | undefined
    if (step.kind === 'addLearner') {
      host = step.host
      const peerUrl = init.hosts().find(({ name }) => name === step.host)?.peerUrl
      if (peerUrl === undefined) return
      await admin.addLearner(peerUrl)
    } else if (step.kind !== 'none') {
      const member = members.find(({ id }) => id === step.id)
      host = member?.host
      if (step.kind === 'promote') await admin.promote(step.id)
      else await admin.remove(step.id)
      if (step.kind === 'remove' && member?.isLearner && host) observed.shun(host)
    }
    log.info({ ...step, host }, "etcd's members were changed")
    init.onStep?.(step, host)
  }

  const queue = createWorkQueue(
    {
      async handle() {
        const health = await look()
        const situation = observed.situation(health)
        const step = planStep(situation, init.timing)
        if (await perform(step, situation)) {
          changedMs = clock.monotonicMs()
          return { againMs: 0 }
        }
        // A learner is about to be in sync, etcd about to take it: that needs no full interval.
        const hasLearner = health.some(({ member }) => member.isLearner)
        if (step.kind !== 'none' || hasLearner) return soon()
        await maintain(health, components)
        return { againMs: init.intervalMs }
      },
      backoff: { firstMs: 500, mostMs: 3_000 },
    },
    components,
  )
  queue.add('etcd')
  return { stop: () => queue.stop() }
}

const soonestMs = 200

/** Whether etcd is to be asked again rather than anything being wrong. */
function isPassing(error: unknown): boolean {
  const codes = [
    'etcdLearnerBehind',
    'etcdLearnerBusy',
    'etcdMemberExists',
    'etcdMemberUnknown',
    'etcdUnhealthy',
  ] as const
  return codes.some(code => isFailure(error, code))
}

/** Remembers since when what was seen is so: etcd itself only says how it is now. */
function createObserver(init: EtcdPlannerInit, clock: Clock) {
  /** Since when members do not answer, by id. */
  let silentSince = new Map<string, number>()
  const shunnedUntil = new Map<string, number>()
  let evenSinceMs: number | undefined

  const describe = ({ member, status }: MemberHealth, nowMs: number): PlannedMember => {
    const { id, isLearner, peerUrls } = member
    const host = init.hosts().find(({ peerUrl }) => peerUrls.includes(peerUrl))?.name
    const sinceMs = silentSince.get(id)
    return {
      id,
      ...(host === undefined ? {} : { host }),
      isLearner,
      leads: status?.leaderId === id,
      // At least 1: it is silent, if only from this moment on.
      unhealthyMs: sinceMs === undefined ? 0 : Math.max(1, nowMs - sinceMs),
    }
  }
  return {
    shun(host: string): void {
      shunnedUntil.set(host, clock.monotonicMs() + init.shunMs)
    },
    situation(health: readonly MemberHealth[]): EtcdSituation {
      const nowMs = clock.monotonicMs()
      const silent = health.filter(({ status }) => status === undefined)
      silentSince = new Map(silent.map(({ member: { id } }) => [id, silentSince.get(id) ?? nowMs]))
      const voters = health.filter(({ member }) => !member.isLearner).length
      evenSinceMs = voters % 2 === 0 ? (evenSinceMs ?? nowMs) : undefined
      for (const [host, untilMs] of shunnedUntil) {
        if (untilMs <= nowMs) shunnedUntil.delete(host)
      }
      return {
        members: health.map(one => describe(one, nowMs)),
        hosts: init.hosts().map(({ peerUrl: _, ...host }) => ({
          ...host,
          shunned: shunnedUntil.has(host.name),
        })),
        votersMost: init.votersMost,
        evenMs: evenSinceMs === undefined ? 0 : nowMs - evenSinceMs,
      }
    },
  }
}
