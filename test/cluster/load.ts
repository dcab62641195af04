import { setTimeout as delay } from 'node:timers/promises'
import { isFailure, messageOf } from '../../base/errors.ts'
import { type Random, randomInteger } from '../../base/random.ts'
import { StatusError } from '../../interface/cli/status-error.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import { until } from '../support/host.ts'
import type { TestFleet } from './fleet.ts'

/** What was asked for a machine, and what was answered: the record that the hosts are held to. */
export interface Ordered {
  name: string
  onHostLoss: 'Wait' | 'Replace'
  /** Known when its creation was acknowledged. */
  uid?: string
  /** `doubtful`: no answer, or one that leaves open whether it happened. */
  create: 'acknowledged' | 'doubtful'
  remove?: 'asked' | 'acknowledged' | 'doubtful'
  /** What happened to it, with times. */
  story: string[]
}

/** Users who create and delete machines through whichever host answers. */
export interface Load {
  ordered: readonly Ordered[]
  /** Ends it, and waits for what is under way. */
  stop(): Promise<void>
  /**
   * Deletes the machines of which nobody knows whether they are there, until they are known not to
   * be. To be called when the fleet is well.
   */
  settle(): Promise<void>
}

/** How much is asked. */
export interface LoadInit {
  /** Machines that there are at most at a time. */
  most: number
  /** Mean time between two requests. */
  pauseMs: number
}

const machines = '/apis/macfleet.dev/v1/namespaces/default/virtualmachines'
const answerMs = 10_000
const settleMs = 60_000
const at = (): string => new Date().toISOString()
const isGone = (error: unknown): boolean => error instanceof StatusError && error.httpStatus === 404
/** An answer that says that nothing happened. */
const isRefusal = (error: unknown): boolean =>
  error instanceof StatusError && error.httpStatus >= 400 && error.httpStatus < 500

/** Begins at once. */
export function startLoad(init: LoadInit, fleet: TestFleet, random: Random): Load {
  const ordered: Ordered[] = []
  const stopping = new AbortController()
  const pick = <T>(list: readonly T[]): T | undefined => list[randomInteger(random, list.length)]

  /** Asks hosts in turn until one takes the request. @returns undefined when none does */
  const ask = async (method: string, path: string, body: object) => {
    const names = fleet.rack.hosts.map(({ name }) => name)
    const first = randomInteger(random, names.length)
    for (const name of [...names.slice(first), ...names.slice(0, first)]) {
      try {
        const options = { body, timeoutMs: answerMs }
        const answer = await fleet.client(name).request(method, path, options)
        return { host: name, answer }
      } catch (error) {
        // Nobody was there to hear it.
        if (isFailure(error, 'daemonNotThere')) continue
        return { host: name, error }
      }
    }
    return undefined
  }
  const create = async (): Promise<void> => {
    const name = `vm-${ordered.length + 1}`
    const onHostLoss = randomInteger(random, 2) === 0 ? 'Wait' : 'Replace'
    const spec = {
      ...{ image: 'micro', cpu: '100m', memory: '128Mi', ports: [{ guestPort: 22 }] },
      ...{ onHostLoss, restartPolicy: 'Always' },
    }
    const type = { apiVersion: 'macfleet.dev/v1', kind: 'VirtualMachine' }
    const sentAt = at()
    const asked = await ask('POST', machines, { ...type, metadata: { name }, spec })
    if (asked === undefined) return
    const { host, answer, error } = asked
    // Its name is used up all the same.
    const one: Ordered = { name, onHostLoss, create: 'doubtful', story: [] }
    ordered.push(one)
    if (error === undefined) {
      const { uid } = (answer as VirtualMachine).metadata
      Object.assign(one, { create: 'acknowledged', uid })
      one.story.push(`${at()} created through ${host} as ${uid} (asked ${sentAt})`)
    } else one.story.push(`${at()} creation through ${host}: ${messageOf(error)}`)
  }
  const remove = async (one: Ordered): Promise<void> => {
    one.remove = 'asked'
    const body = { apiVersion: 'v1', kind: 'DeleteOptions', gracePeriodSeconds: 0 }
    const asked = await ask('DELETE', `${machines}/${one.name}`, body)
    const { host, error } = asked ?? { host: 'nobody' }
    one.remove = asked === undefined || error !== undefined ? 'doubtful' : 'acknowledged'
    one.story.push(`${at()} deletion through ${host}: ${error ? messageOf(error) : 'taken'}`)
    if (!isRefusal(error)) return
    if (!isGone(error)) delete one.remove
    else if (one.create === 'acknowledged') throw new Error(`${one.name} is forgotten`)
  }
  const work = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      const there = ordered.filter(one => one.create === 'acknowledged' && !one.remove)
      // More often to the brim than empty.
      const isCreate = there.length < init.most && randomInteger(random, 3) > 0
      const one = isCreate ? undefined : pick(there)
      if (one === undefined) await create()
      else await remove(one)
      const pauseMs = init.pauseMs / 2 + randomInteger(random, init.pauseMs)
      await delay(pauseMs, undefined, { signal: stopping.signal }).catch(() => {})
    }
  }
  const working = work()
  working.catch(() => {})
  const goAway = async (one: Ordered): Promise<true | undefined> => {
    const body = { apiVersion: 'v1', kind: 'DeleteOptions', gracePeriodSeconds: 0 }
    const asked = await ask('DELETE', `${machines}/${one.name}`, body)
    if (!isGone(asked?.error)) return undefined
    one.remove = 'acknowledged'
    one.story.push(`${at()} known to be gone`)
    return true
  }
  return {
    ordered,
    async stop() {
      stopping.abort()
      await working
    },
    async settle() {
      const isDoubtful = ({ create, remove }: Ordered) =>
        remove === 'doubtful' || (create === 'doubtful' && remove === undefined)
      for (const one of ordered.filter(isDoubtful)) {
        await until(`${one.name} is gone`, () => goAway(one), settleMs)
      }
    },
  }
}

/** The machines that have to be there. */
export function promised({ ordered }: Pick<Load, 'ordered'>): Ordered[] {
  return ordered.filter(({ create, remove }) => create === 'acknowledged' && remove === undefined)
}
