import type { Amounts, Host } from '../../resources/host.ts'
import type { VirtualMachineSpec } from '../../resources/virtual-machine.ts'

/** What keeps machines off a host, or only off when there is another. */
export type Taint = NonNullable<Host['spec']['taints']>[number]
/** Which taints a machine does not mind. */
export type Toleration = NonNullable<VirtualMachineSpec['tolerations']>[number]

/** A host, as far as it matters for what goes there. What runs on it is counted apart. */
export interface HostView {
  name: string
  /** `rack`, `arch` and `model` among them. */
  labels: Readonly<Record<string, string>>
  taints: readonly Taint[]
  /** Whether the operator lets new machines come. */
  schedulable: boolean
  /** Whether it can run machines at all: its lease is held and it says that it is well. */
  ready: boolean
  allocatable: Amounts
  /** As in `x86_64`. */
  arch: string
  /** Of its processor, when they are known. */
  cpuFlags?: ReadonlySet<string>
  /** The most macOS guests at a time; Linux guests are not counted. */
  macosGuestsMost: number
  /**
   * Yes may be wrong; no never is. The answers are remembered until `setHost` is called with the
   * host again: to be done when its images have changed.
   */
  mayHoldImage(digest: string): boolean
}

/** What a machine needs. Machines with the same needs are placed by the same verdicts. */
export interface Needs {
  request: Amounts
  machine: VirtualMachineSpec['machine']
  arch: string
  cpuFlags?: readonly string[] | undefined
  hostSelector?: Readonly<Record<string, string>> | undefined
  tolerations?: readonly Toleration[] | undefined
  /** Once its digest is known. */
  image?: { digest: string; bytes?: number } | undefined
  /** Its copies, which are spread: machines of the same group. */
  group: string
  /** The host label over whose values copies are spread strictly; over racks, softly, without it. */
  spread?: string | undefined
}

/** A host that said no to a machine, and for how long that counts. */
export interface Refusal {
  host: string
  reason: string
  /** Wall clock. */
  untilMs: number
}

/** A machine that wants a place. */
export interface Wanted extends Needs {
  uid: string
  namespace: string
  name: string
  /** Higher is placed first. */
  priority: number
  /** Wall clock, from the store, so that every leader has the same order. */
  sinceMs: number
  /**
   * The host that has its disk: nowhere else. Neither cordoning, taints nor labels are asked then;
   * whether it is ready, and room, are.
   */
  anchor?: string | undefined
  refusals?: readonly Refusal[] | undefined
}

/** A machine that takes room on a host (see takesRoom in ../fleet/placement.ts). */
export interface Placed extends Pick<Needs, 'request' | 'machine' | 'group'> {
  uid: string
  host: string
}

/** A machine goes to a host. */
export interface Decision {
  machine: Wanted
  host: string
  score: number
}

/** Through whom decisions go out. */
export interface Planner {
  /**
   * @returns whether the decision is taken. When it is, the state counts it by now (`occupy` and
   *   `unwant`); when not, nothing has changed and the machine waits for the next round.
   */
  place(decision: Decision): boolean
}

/** How hosts are preferred. */
export interface Policy {
  /** `balance`: the emptiest host first. `pack`: the fullest that fits. */
  room: 'balance' | 'pack'
  /** Which of equally good hosts comes first depends on it. */
  seed: number
  /**
   * A machine that waits keeps room from those of a lower priority at once, and after this long
   * from those of its own that came later.
   */
  patienceMs: number
  /** It keeps one host at first, and twice as many whenever this long has passed. */
  widenMs: number
}

/** What the scheduler may know; nothing in it is a clock, a store or a socket. */
export interface State {
  readonly policy: Policy
  hosts(): Iterable<HostView>
  host(name: string): HostView | undefined
  /** The host on which a machine takes room. */
  hostOf(uid: string): string | undefined
  placed(uid: string): Placed | undefined
  /** What is promised on a host. */
  reserved(host: string): Amounts
  macosGuests(host: string): number
  /** Who wants a place, who is first first. */
  queue(): readonly Wanted[]
}

/** A state that its owner keeps up to date. Every change is idempotent. */
export interface FleetState extends State {
  /** A new host, or what has changed of one. */
  setHost(host: HostView): void
  /** What takes room there goes on taking it, should the host come back. */
  removeHost(name: string): void
  /** A machine takes room; what it took before, elsewhere too, it gives back. */
  occupy(placed: Placed): void
  vacate(uid: string): void
  /** A machine wants a place, or wants it differently. */
  want(wanted: Wanted): void
  unwant(uid: string): void
}

/** Why some hosts don't take a machine. */
export interface Reason {
  hosts: number
  /** As in "wants 4 cores, 2 are free". */
  text: string
}

/** A machine that has no place. */
export interface Waiting {
  machine: Wanted
  /** Its place in the queue, from 1. */
  place: number
  /** The commonest first. It looks at every host: to be asked for if wanted, before the state changes. */
  reasons(): Reason[]
}

/** What came of a round. */
export interface Round {
  placed: Decision[]
  /** For which no host was found. */
  waiting: Waiting[]
  /** Whether it stopped at the most decisions of a round, with machines not looked at. */
  more: boolean
}

/** The parts of a score; the sum is what counts. */
export interface ScoreParts {
  room: number
  image: number
  spread: number
  taints: number
}

/** What one host is to a machine: either objections, or a score. */
export interface HostVerdict {
  host: string
  objections: string[]
  score?: number
  parts?: ScoreParts
}

/** Why a machine goes where it goes, or why nowhere. */
export interface Explanation {
  /** Where it takes room already. */
  current?: string
  /** Where it would go now. */
  best?: string
  /** Its place in the queue, from 1; absent when it is not in it. */
  place?: number
  /** Of how many. */
  queued: number
  reasons: Reason[]
  /** The best first, then those with objections, by name. */
  hosts: HostVerdict[]
}
