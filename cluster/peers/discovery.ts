import { isIPv4 } from 'node:net'
import type { MulticastDNS } from 'multicast-dns'
import type { Clock, Timer } from '../../base/clock.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import { type Random, randomInteger } from '../../base/random.ts'
import {
  type DnsRecord,
  type FoundHost,
  hostIn,
  recordsOf,
  serviceName,
} from './discovery-records.ts'
import { createRate } from './rate.ts'

/** Where a host looks for others, and what it says of itself. */
export interface DiscoveryInit {
  /** This host's address; the network that it is on is searched. */
  address: string
  /** What others are told; absent while the host is of no fleet. */
  announce?: Omit<FoundHost, 'address'>
}

/** What discovery needs. */
export interface DiscoveryComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
}

/** Hosts in the same rack, by multicast DNS. */
export interface Discovery {
  /** Those that were heard in the last minutes. */
  found(): FoundHost[]
  /** Each host once, as it is heard, until `signal` is aborted; asks for them meanwhile. */
  discover(signal: AbortSignal): AsyncIterable<FoundHost>
  /** Why nobody is found: a sentence; undefined when it works as far as we can tell. */
  obstacle(): string | undefined
  stop(): Promise<void>
}

const spansMs = {
  /** Questions: the first ones soon after each other, then seldom. */
  firstQuestion: 500,
  lastQuestion: 30_000,
  /** Before an answer, by chance, so that a rack does not answer as one (RFC 6762, section 6). */
  answer: 100,
  answerGap: 200,
  /** What we send comes back to us too; if it did not within this, others don't hear it either. */
  echo: 3_000,
  forget: 150_000,
}

interface Heard {
  host: FoundHost
  atMs: number
}

/**
 * Starts to answer those who look for hosts, and to listen. It never fails: where multicast does
 * not work it says so in the log, and `obstacle` says it to whoever asks.
 */
export async function startDiscovery(
  init: DiscoveryInit,
  components: DiscoveryComponents,
): Promise<Discovery> {
  const { clock, log, limits } = components
  const heard = new Map<string, Heard>()
  const listeners = new Set<(host: FoundHost) => void>()
  if (!isIPv4(init.address)) {
    return idle(`${init.address} is no IPv4 address; hosts are found in IPv4 networks only`, log)
  }
  const radio = await openRadio(init, components, found => {
    const { address, peerPort, fleetTag } = found
    const key = `${address} ${peerPort} ${fleetTag}`
    const nowMs = clock.monotonicMs()
    for (const [old, { atMs }] of heard) if (nowMs - atMs > spansMs.forget) heard.delete(old)
    // Taken out and put in again, so that the first is the one that was silent longest.
    const isNew = !heard.delete(key)
    for (const oldest of heard.keys()) {
      if (heard.size < limits.discoveredHosts) break
      heard.delete(oldest)
    }
    heard.set(key, { host: found, atMs: nowMs })
    if (isNew) for (const listener of [...listeners]) listener(found)
  })
  return {
    found: () => [...heard.values()].map(({ host }) => host),
    obstacle: radio.obstacle,
    stop: radio.stop,
    async *discover(signal) {
      const queue: FoundHost[] = [...heard.values()].map(({ host }) => host)
      let wake = Promise.withResolvers<void>()
      const listener = (host: FoundHost): void => {
        if (queue.length < limits.discoveredHosts) queue.push(host)
        wake.resolve()
      }
      const onAbort = (): void => wake.resolve()
      listeners.add(listener)
      signal.addEventListener('abort', onAbort, { once: true })
      const endAsking = radio.ask()
      try {
        while (!signal.aborted) {
          const next = queue.shift()
          if (next !== undefined) {
            yield next
            continue
          }
          await wake.promise
          wake = Promise.withResolvers<void>()
        }
      } finally {
        endAsking()
        listeners.delete(listener)
        signal.removeEventListener('abort', onAbort)
      }
    },
  }
}

interface Radio {
  /** Asks who is there, often at first. @returns to be called to end it */
  ask(): () => void
  obstacle(): string | undefined
  stop(): Promise<void>
}

async function openRadio(
  { address, announce }: DiscoveryInit,
  { clock, random, log, limits }: DiscoveryComponents,
  onFound: (host: FoundHost) => void,
): Promise<Radio> {
  const { default: makeMulticastDns } = await import('multicast-dns')
  const label = random.bytes(8).toString('hex')
  const own = announce === undefined ? [] : recordsOf(label, { address, ...announce })
  // With its interface named, a packet needs no route; on one address multicast is not heard.
  const mdns = makeMulticastDns({ interface: address, bind: '0.0.0.0', loopback: true })
  const rate = createRate(
    { perSecond: limits.discoveryPacketsPerSecond, most: 2 * limits.discoveryPacketsPerSecond },
    clock,
  )
  const timers = createTimers(clock)
  const trouble = watchTrouble(mdns, address, log)
  let answering = false

  const answer = (): void => {
    if (answering || own.length === 0) return
    answering = true
    timers.set(randomInteger(random, spansMs.answer), () => {
      mdns.respond({ answers: own as never }, trouble.sent)
      timers.set(spansMs.answerGap, () => {
        answering = false
      })
    })
  }
  mdns.on('query', ({ questions = [] }, { address: from }) => {
    if (!rate.take(1)) return
    if (from === address) trouble.echoed()
    const asked = questions.slice(0, 64).some(({ name }) => isService(name))
    if (asked) answer()
  })
  mdns.on('response', ({ answers = [], additionals = [] }, { address: from }) => {
    if (!rate.take(1)) return
    if (from === address) trouble.echoed()
    const found = hostIn([...answers, ...additionals] as DnsRecord[])
    if (found !== undefined && found.label !== label) onFound(found.host)
  })
  const question = (): void => {
    mdns.query({ questions: [{ name: serviceName, type: 'PTR' }] }, trouble.sent)
  }
  // One question in any case: that it comes back shows whether multicast works.
  question()
  answer()
  timers.set(spansMs.echo, trouble.judge)
  return {
    ask() {
      let waitMs = spansMs.firstQuestion
      let timer: Timer | undefined
      const again = (): void => {
        question()
        timer = timers.set(waitMs, again)
        waitMs = Math.min(spansMs.lastQuestion, waitMs * 2)
      }
      again()
      return () => timer?.cancel()
    },
    obstacle: trouble.obstacle,
    stop() {
      timers.stop()
      return new Promise(resolve => mdns.destroy(() => resolve()))
    },
  }
}

function isService(name: unknown): boolean {
  return typeof name === 'string' && name.toLowerCase() === serviceName
}

interface Trouble {
  sent(error?: Error | null): void
  echoed(): void
  /** Says aloud that nothing came back, if so. */
  judge(): void
  obstacle(): string | undefined
}

/** Multicast that leads nowhere makes no error; what is said to all must come back to us. */
function watchTrouble(mdns: MulticastDNS, address: string, log: Log): Trouble {
  let cause: string | undefined
  let heardBack = false
  let isTold = false
  const note = (error: Error): void => {
    cause = messageOf(error)
  }
  // Garbage that somebody sent is a warning too.
  mdns.on('warning', error => ('syscall' in error ? note(error) : undefined))
  mdns.on('error', note)
  const obstacle = (): string | undefined => {
    if (heardBack) return undefined
    const why = cause === undefined ? '' : ` (${cause})`
    return `what is sent by multicast from ${address} does not come back${why}`
  }
  return {
    sent: error => (error ? note(error) : undefined),
    echoed() {
      heardBack = true
    },
    judge() {
      const text = obstacle()
      if (text === undefined || isTold) return
      isTold = true
      log.warn({ address, obstacle: text }, 'hosts in this rack do not find each other by mDNS')
    },
    obstacle,
  }
}

interface Timers {
  set(delayMs: number, callback: () => void): Timer
  stop(): void
}

/** Timers that all end together. */
function createTimers(clock: Clock): Timers {
  const pending = new Set<Timer>()
  let stopped = false
  return {
    set(delayMs, callback) {
      const inner = clock.setTimer(delayMs, () => {
        pending.delete(timer)
        if (!stopped) callback()
      })
      const timer: Timer = {
        cancel() {
          pending.delete(timer)
          inner.cancel()
        },
      }
      pending.add(timer)
      return timer
    },
    stop() {
      stopped = true
      for (const timer of [...pending]) timer.cancel()
    },
  }
}

function idle(obstacle: string, log: Log): Discovery {
  log.warn({ obstacle }, 'hosts in this rack do not find each other by mDNS')
  return {
    found: () => [],
    obstacle: () => obstacle,
    stop: async () => {},
    async *discover(signal) {
      await new Promise<void>(resolve => {
        if (signal.aborted) resolve()
        signal.addEventListener('abort', () => resolve(), { once: true })
      })
    },
  }
}
