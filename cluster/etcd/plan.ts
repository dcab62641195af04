/** One member of etcd, as the planner sees it. */
export interface PlannedMember {
  id: string
  /** The host of the fleet whose peer URL it has; undefined when no approved member has it. */
  host?: string
  isLearner: boolean
  /** Whether it leads etcd now. */
  leads: boolean
  /** For how long it has not answered; 0 when it does. */
  unhealthyMs: number
}

/** One approved host of the fleet. */
export interface PlannedHost {
  name: string
  rack?: string
  /** Its lease is there. */
  alive: boolean
  /** It takes no new machines, perhaps because it is about to be switched off. */
  cordoned: boolean
  /** A learner given to it came to nothing lately. */
  shunned: boolean
}

/** Everything that the next step depends on. */
export interface EtcdSituation {
  members: readonly PlannedMember[]
  hosts: readonly PlannedHost[]
  /** Voters wanted at most: 1, 3 or 5. */
  votersMost: number
  /** For how long the number of voters has been even. */
  evenMs: number
}

/** From when on something counts as lasting. */
export interface PlanTiming {
  /**
   * A voter that is silent for so long is replaced. Shorter: a host that restarts loses its voter
   * for nothing. Longer: a second loss meanwhile ends decisions.
   */
  voterDeadMs: number
  /** A learner that is silent for so long is taken back, and its host shunned. */
  learnerDeadMs: number
  /** An even number of voters is made odd after so long, by one less if it can't be one more. */
  evenMostMs: number
}

/** The spans of a fleet in service. */
export const defaultPlanTiming: PlanTiming = {
  voterDeadMs: 300_000,
  learnerDeadMs: 90_000,
  evenMostMs: 120_000,
}

/** The one next change to etcd's members; `why` is a reason for the log. */
export type EtcdStep =
  | { kind: 'addLearner'; host: string; why: string }
  | { kind: 'promote'; id: string; why: string }
  | { kind: 'remove'; id: string; why: string }
  | { kind: 'none'; why: string }

/** How many voters a fleet of so many hosts should have: odd, and 1 where 2 would be no safer. */
export function wantedVoters(hosts: number, votersMost: number): number {
  return Math.max(1, oddAtMost(Math.min(hosts, votersMost)))
}

/** How many voters must answer for anything to be agreed. */
export function quorumOf(voters: number): number {
  return Math.floor(voters / 2) + 1
}

/**
 * Decides the one next step towards the wanted voters, spread over racks. Pure: called again after
 * every step, with what is then true.
 *
 * A dead voter is removed before its successor is added, because etcd takes no new member while a
 * voter is silent; that costs nothing, as two of two and two of three can lose equally few. No step
 * is taken that leaves fewer healthy voters than a quorum of the new number.
 */
export function planStep(situation: EtcdSituation, timing: PlanTiming): EtcdStep {
  const view = viewOf(situation, timing)
  const { voters, healthy } = view
  if (healthy.length < quorumOf(voters.length)) return none('most voters are silent')
  return (
    tendLearner(view) ??
    removeGone(view) ??
    replaceDead(view) ??
    removeSurplus(view) ??
    grow(view) ??
    spread(view) ??
    none('as wanted')
  )
}

interface View {
  situation: EtcdSituation
  timing: PlanTiming
  voters: PlannedMember[]
  healthy: PlannedMember[]
  learner: PlannedMember | undefined
  /** Voters whose host is of the fleet. */
  lasting: PlannedMember[]
  /** Hosts that could take a learner, the best first. */
  candidates: PlannedHost[]
  wanted: number
  hostOf(member: PlannedMember): PlannedHost | undefined
  /** How many lasting voters stand in the rack of a host. */
  crowd(host: PlannedHost | undefined): number
}

function viewOf(situation: EtcdSituation, timing: PlanTiming): View {
  const { members, hosts, votersMost } = situation
  const byName = new Map(hosts.map(host => [host.name, host]))
  const hostOf = (member: PlannedMember) => byName.get(member.host ?? '')
  const voters = members.filter(member => !member.isLearner)
  const lasting = voters.filter(member => hostOf(member) !== undefined)
  const crowd = (host: PlannedHost | undefined) =>
    lasting.filter(voter => rackOf(hostOf(voter)) === rackOf(host)).length
  const taken = new Set(members.map(member => member.host))
  const candidates = hosts
    .filter(host => host.alive && !host.shunned && !taken.has(host.name))
    .sort(
      (one, other) =>
        Number(one.cordoned) - Number(other.cordoned) ||
        crowd(one) - crowd(other) ||
        (one.name < other.name ? -1 : 1),
    )
  return {
    situation,
    timing,
    voters,
    healthy: voters.filter(isHealthy),
    learner: members.find(member => member.isLearner),
    lasting,
    candidates,
    wanted: wantedVoters(hosts.length, votersMost),
    hostOf,
    crowd,
  }
}

/** A host that names no rack stands in one with all others that name none. */
function rackOf(host: PlannedHost | undefined): string {
  return host?.rack ?? ''
}

function isHealthy(member: PlannedMember): boolean {
  return member.unhealthyMs === 0
}

/** etcd has one learner at a time: until it is promoted or taken back nothing else grows. */
function tendLearner(view: View): EtcdStep | undefined {
  const { learner, timing } = view
  if (learner === undefined) return undefined
  const { id } = learner
  const host = view.hostOf(learner)
  if (host === undefined) return remove(id, 'its host is not of the fleet')
  if (learner.unhealthyMs > timing.learnerDeadMs) return remove(id, 'the learner never came')
  const gone = removeGone(view) ?? replaceDead(view, [host])
  if (gone !== undefined) return gone
  if (!isNeeded(view, host)) return remove(id, 'enough voters without it')
  if (!isHealthy(learner)) return none('waiting for the learner')
  if (view.healthy.length + 1 < quorumOf(view.voters.length + 1)) {
    return none('too few voters answer')
  }
  return { kind: 'promote', id, why: 'the learner answers' }
}

/** Whether the host of a learner is to have a voter. */
function isNeeded(view: View, host: PlannedHost): boolean {
  const { lasting, candidates } = view
  return lasting.length < targetOf(view, candidates.length + 1) || wouldSpread(view, host)
}

/** How many voters there can be with so many hosts to choose from; odd. */
function targetOf({ lasting, wanted }: View, choices: number): number {
  return Math.max(1, oddAtMost(Math.min(wanted, lasting.length + choices)))
}

/** Hosts that were removed from the fleet have no say in it; the last voter must stay though. */
function removeGone(view: View): EtcdStep | undefined {
  const gone = view.voters.find(voter => view.hostOf(voter) === undefined && mayRemove(view, voter))
  return gone && remove(gone.id, 'its host is not of the fleet')
}

/** A live host whose etcd does not answer is its own heir: with an empty folder it may be well. */
function replaceDead(view: View, heirs: readonly PlannedHost[] = []): EtcdStep | undefined {
  const hasHeir = (voter: PlannedMember): boolean => {
    const host = view.hostOf(voter)
    const mayReturn = host?.alive === true && !host.shunned
    return mayReturn || view.candidates.length + heirs.length > 0
  }
  const dead = view.voters.find(
    voter =>
      voter.unhealthyMs > view.timing.voterDeadMs && hasHeir(voter) && mayRemove(view, voter),
  )
  return dead && remove(dead.id, 'it was silent for too long, and a live host can take over')
}

function removeSurplus(view: View): EtcdStep | undefined {
  const { voters, situation, timing, wanted } = view
  const lasts = situation.evenMs > timing.evenMostMs
  const isStuck =
    voters.length % 2 === 0 && lasts && targetOf(view, view.candidates.length) < voters.length
  if (voters.length <= wanted && !isStuck) return undefined
  const order = [...voters].sort(
    (one, other) =>
      Number(isHealthy(one)) - Number(isHealthy(other)) ||
      view.crowd(view.hostOf(other)) - view.crowd(view.hostOf(one)) ||
      Number(view.hostOf(other)?.cordoned) - Number(view.hostOf(one)?.cordoned) ||
      Number(one.leads) - Number(other.leads) ||
      (one.id < other.id ? -1 : 1),
  )
  const spare = order.find(voter => mayRemove(view, voter))
  return spare && remove(spare.id, 'fewer voters are as safe')
}

function grow(view: View): EtcdStep | undefined {
  const { lasting, candidates, voters, healthy } = view
  const [best] = candidates
  if (best === undefined || lasting.length >= targetOf(view, candidates.length)) return undefined
  if (healthy.length < voters.length) return none('etcd takes no member while a voter is silent')
  return { kind: 'addLearner', host: best.name, why: 'more voters are safer' }
}

/** Moves a voter from a crowded rack to one with fewer: first the new one, then the old one goes. */
function spread(view: View): EtcdStep | undefined {
  const { candidates, voters, healthy, lasting, wanted } = view
  if (healthy.length < voters.length || lasting.length !== wanted) return undefined
  const [best] = candidates.filter(host => !host.cordoned && wouldSpread(view, host))
  return best && { kind: 'addLearner', host: best.name, why: 'another rack has too many voters' }
}

function wouldSpread(view: View, host: PlannedHost): boolean {
  const most = Math.max(0, ...view.lasting.map(voter => view.crowd(view.hostOf(voter))))
  return view.voters.length === view.wanted && most - view.crowd(host) >= 2
}

/** Whether the others have a quorum without it. */
function mayRemove({ voters, healthy }: View, voter: PlannedMember): boolean {
  const left = healthy.filter(other => other !== voter).length
  return voters.length > 1 && left >= quorumOf(voters.length - 1)
}

function remove(id: string, why: string): EtcdStep {
  return { kind: 'remove', id, why }
}

function none(why: string): EtcdStep {
  return { kind: 'none', why }
}

function oddAtMost(count: number): number {
  return count % 2 === 0 ? count - 1 : count
}
