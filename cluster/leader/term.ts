import { messageOf } from '../../base/log.ts'
import { type Again, createWorkQueue, type WorkQueue } from '../../base/work-queue.ts'
import type { Timing } from '../fleet/timing.ts'
import type { Policy } from '../scheduler/types.ts'
import { createBook } from './book.ts'
import { createFencedWrites, TermOver } from './fenced-writes.ts'
import { handleHost } from './host-lane.ts'
import type { Term } from './leadership.ts'
import { createMachineLane, type MachineLane } from './machine-lane.ts'
import { createPlacing } from './placing.ts'
import { endRecovery, isRecovering } from './recovery.ts'
import { createSilences } from './silence.ts'
import { createTeller } from './teller.ts'
import type { TermComponents, TermContext } from './term-context.ts'
import { followFleet, type News } from './view.ts'

/** How a host leads. */
export interface TermInit {
  timing: Pick<Timing, 'graceMs'>
  /** Whether hosts hold leases: false on a single host. */
  fenced: boolean
  policy?: Policy | undefined
}

/** For so long a host whose daemon has died keeps its lease, and a renewal more. */
const suspectMs = 30_000

const backoff = { firstMs: 100, mostMs: 5_000 }

/**
 * Leads for one term: gives machines to hosts, takes them from hosts that are lost, and removes
 * what nobody has. All it knows it reads from the store anew, and what it decides rests on what
 * is, not on what happened; so it may end at any point, and the next term goes on from there.
 */
export async function runTerm(
  term: Term,
  init: TermInit,
  components: TermComponents,
): Promise<void> {
  await new TermWork(term, init, components).run()
}

class TermWork {
  readonly #context: TermContext
  readonly #machineLane: MachineLane
  readonly #machines: WorkQueue
  readonly #hosts: WorkQueue
  readonly #fleet: WorkQueue
  readonly #over = new AbortController()
  readonly #signal: AbortSignal
  readonly #images = new Map<string, string>()
  readonly #term: Term
  readonly #beganMs: number
  #recovering = false

  constructor(term: Term, init: TermInit, components: TermComponents) {
    this.#term = term
    this.#beganMs = components.clock.monotonicMs()
    this.#signal = AbortSignal.any([term.signal, this.#over.signal])
    const silences = createSilences(init, components.clock)
    const view = followFleet(
      { onNews: news => this.#onNews(news), onGap: () => silences.doubt() },
      components,
    )
    const lives = (host: string) => silences.sight(host).is === 'Lives' && !this.#isSuspect(host)
    const book = createBook({ policy: init.policy, lives }, { ...components, view })
    const writes = createFencedWrites({ ...term, signal: this.#signal }, { ...components, view })
    const teller = createTeller(
      (machine, why) => components.events.record(machine, { type: 'Warning', ...failed(why) }),
      { ...components, view, writes },
    )
    const placing = createPlacing(
      {
        onPlaced: (part, before) => this.#machineLane.onPlaced(part.next, before),
        onUnsettled: uid => this.#machines.add(uid),
        onWaiting: waiting => {
          components.metrics.waiting(book.state.queue().length)
          return teller.tell(waiting, book.state.queue().length)
        },
      },
      { ...components, view, book, writes },
    )
    this.#context = { ...components, view, book, silences, writes, placing, teller }
    this.#machineLane = createMachineLane(this.#context, () => this.#recovering)
    const lanes = { clock: components.clock, log: components.log }
    this.#machines = createWorkQueue(
      { handle: uid => this.#guard(() => this.#machineLane.handle(uid)), backoff },
      lanes,
    )
    this.#hosts = createWorkQueue(
      { handle: host => this.#guard(() => this.#handleHost(host)), backoff },
      lanes,
    )
    const recover = () => endRecovery(this.#context)
    this.#fleet = createWorkQueue({ handle: () => this.#guard(recover), backoff }, lanes)
  }

  async run(): Promise<void> {
    const { clock, log, placing, view, metrics, facts } = this.#context
    metrics.leads(true)
    const unhear = facts.onChange(host => this.#onHost(host))
    const { predecessor } = this.#term
    const doubted = clock.setTimer(suspectMs, () => predecessor && this.#onHost(predecessor))
    try {
      await placing.run(this.#signal)
    } catch (error) {
      if (!(error instanceof TermOver)) throw error
      log.info({}, messageOf(error))
    } finally {
      unhear()
      doubted.cancel()
      this.#over.abort()
      metrics.leads(false)
      const lanes = [this.#machines, this.#hosts, this.#fleet]
      await Promise.all([view.stop(), ...lanes.map(lane => lane.stop())])
    }
  }

  /** A lane that finds the term over ends it; there is nothing to be tried again. */
  async #guard(work: () => Promise<Again>): Promise<Again> {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof TermOver)) throw error
      this.#over.abort()
      return undefined
    }
  }

  /**
   * The daemon that led may have died, which its lease does not show for long. Until something is
   * heard of it others come first.
   */
  #isSuspect(host: string): boolean {
    if (host !== this.#term.predecessor) return false
    const { clock, facts } = this.#context
    const heard = facts.of(host)
    const isNew = clock.monotonicMs() < this.#beganMs + suspectMs
    return isNew && heard !== undefined && heard.receivedAtMs < this.#beganMs
  }

  #onNews(news: News): void {
    switch (news.of) {
      case 'machine':
      case 'placement':
        this.#machineLane.onNews(news.uid)
        this.#machines.add(news.uid)
        break
      case 'lease':
        this.#onLease(news.host)
        break
      case 'host':
        this.#onHost(news.host)
        break
      case 'image':
        this.#onImage(news.key)
        break
      case 'fleet':
        this.#onFleet()
    }
  }

  #onHost(host: string): void {
    const { book, placing } = this.#context
    if (book.setHost(host)) placing.wake()
  }

  #onLease(host: string): void {
    const { view, silences } = this.#context
    silences.see(host, view.lease(host) !== undefined, view.life(host)?.modRevision ?? 0)
    this.#onHost(host)
    this.#hosts.add(host)
    for (const uid of view.placedOn(host)) this.#machines.add(uid)
    if (this.#recovering) this.#onFleet()
  }

  /** Machines that wait may want another host, now that their image is known better. */
  #onImage(key: string): void {
    const value = this.#context.view.entry(key)?.value
    const { spec, status } = (value ?? {}) as { spec?: object; status?: Record<string, unknown> }
    const signature = JSON.stringify([spec, status?.digest, status?.sizeBytes])
    if (this.#images.get(key) === signature) return
    this.#images.set(key, signature)
    if (value === undefined) this.#images.delete(key)
    for (const { uid } of this.#context.book.state.queue()) this.#machines.add(uid)
  }

  #onFleet(): void {
    const { view } = this.#context
    const was = this.#recovering
    this.#recovering = isRecovering(view)
    if (this.#recovering) this.#fleet.add('recovery')
    if (was === this.#recovering) return
    for (const uid of view.uids()) this.#machines.add(uid)
    this.#context.placing.wake()
  }

  async #handleHost(host: string): Promise<Again> {
    const again = await handleHost(host, this.#context)
    if (again !== undefined) return again
    for (const uid of this.#context.view.placedOn(host)) this.#machines.add(uid)
    return undefined
  }
}

function failed({ message }: { message: string }): { reason: string; message: string } {
  return { reason: 'FailedScheduling', message }
}
