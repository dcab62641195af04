import type { Clock, Timer } from '../../base/clock.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf as textOf } from '../../base/log.ts'
import { Counter, Gauge, type Registry } from '../../base/metrics.ts'
import { type Random, randomInteger } from '../../base/random.ts'
import type { FactsView } from '../fleet/facts.ts'
import type { AllowList } from '../peers/allow-list.ts'
import { fleetTagOf } from '../peers/fleet-tag.ts'
import type { Peers } from '../peers/peers.ts'
import { createRate, type Rate } from '../peers/rate.ts'
import type { SignedMessage } from '../peers/signed-message.ts'
import type { Verdict } from '../peers/topics.ts'
import { differsEnough } from './changes.ts'
import { startExchange } from './exchange.ts'
import {
  decodeFacts,
  encodeFacts,
  greatestSequence,
  messageOf,
  type OwnFacts,
} from './facts-message.ts'
import { createFactsView, type FillableFactsView, type Offered } from './facts-view.ts'

/** What is gossiped about. */
export interface GossipInit {
  fleetId: string
}

/** What of the network gossip uses; the simulation has its own. */
export type GossipPeers = Pick<
  Peers,
  'peerId' | 'connected' | 'onConnected' | 'request' | 'handle' | 'join' | 'isGenuine'
>

/** What gossip needs. */
export interface GossipComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
  metrics: Registry
  members: AllowList
  peers: GossipPeers
  /** What this host is now; called every second, so it must be quick. */
  measure(): OwnFacts
}

/** Says what this host is, and hears what the others are. */
export interface Gossip {
  facts: FactsView
  /** Something about this host changed; it is measured at once, and said if it matters. */
  changed(): void
  stop(): void
}

const spansMs = {
  measure: 1_000,
  /** Something is said at the latest so long after the last time: with the chance below, in 5 s. */
  publish: 4_000,
  /** The same for a newcomer: while its links are made, what it says may reach nobody. */
  publishNew: 1_000,
  /** From a hint to the measurement: hints come in swarms. */
  hint: 50,
  /** Between two messages, whatever happens. */
  gap: 300,
  /** A host is new for so long. */
  newcomer: 10_000,
}

/** The topic of a fleet. */
export const factsTopicOf = (fleetId: string): string => `/macfleet/facts/1/${fleetTagOf(fleetId)}`

/** Starts to speak and to listen. */
export async function startGossip(init: GossipInit, components: GossipComponents): Promise<Gossip> {
  const { clock, limits, members, peers } = components
  const name = factsTopicOf(init.fleetId)
  const view = createFactsView({ clock, members })
  const metrics = createGossipMetrics(view, components)
  const speaker = createSpeaker(components, data => topic.publish(data))
  const rates = createRates(components)
  const receive = (message: SignedMessage): Verdict => {
    const { peerId } = message
    if (peerId === peers.peerId && speaker.isFromBefore(message)) return 'Ignore'
    if (!rates.take(peerId)) {
      metrics.count('limited')
      return 'Ignore'
    }
    const offered = view.offer(message)
    metrics.count(offered)
    if (offered === 'garbage') return 'Reject'
    return offered === 'new' ? 'Accept' : 'Ignore'
  }
  const topic = peers.join(name, {
    receive,
    joined: speaker.met,
  })
  speaker.start()
  const exchange = await startExchange({
    ...components,
    view,
    isGenuine: message =>
      message.data.length <= limits.gossipMessageBytes && peers.isGenuine(name, message),
    ownReturned: message => void speaker.isFromBefore(message),
  })
  return {
    facts: view,
    changed: speaker.changed,
    stop() {
      exchange.stop()
      speaker.stop()
      topic.leave()
      rates.stop()
      view.stop()
      metrics.stop()
    },
  }
}

interface Speaker {
  start(): void
  changed(): void
  /** Somebody listens from now on: a newcomer says once more what it said last. */
  met(): void
  /**
   * Whether an own message is none of this run. Its sequence is passed then, for others hold it and
   * would take what we say for older: our clock was set back, or was wrong before.
   */
  isFromBefore(message: SignedMessage): boolean
  stop(): void
}

function createSpeaker(
  { clock, random, log, measure }: GossipComponents,
  publish: (data: Uint8Array) => Promise<void>,
): Speaker {
  // Later runs have greater numbers without anything being kept on disk, if the clock is right.
  let sequence = Math.min(greatestSequence / 2, Math.floor(clock.wallMs()))
  let said: { own: OwnFacts; atMs: number } | undefined
  let dueMs = 0
  let newUntilMs = clock.monotonicMs() + spansMs.newcomer
  let timer: Timer | undefined
  let timerMs = Number.POSITIVE_INFINITY
  let stopped = false

  const wake = (inMs: number): void => {
    const atMs = clock.monotonicMs() + inMs
    if (stopped || timerMs <= atMs) return
    timer?.cancel()
    timerMs = atMs
    timer = clock.setTimer(inMs, tick)
  }
  const say = async (own: OwnFacts): Promise<void> => {
    const nowMs = clock.monotonicMs()
    sequence = Math.min(greatestSequence, sequence + 1)
    said = { own, atMs: nowMs }
    const aboutMs = nowMs < newUntilMs ? spansMs.publishNew : spansMs.publish
    dueMs = nowMs + aboutMs + randomInteger(random, aboutMs / 5)
    try {
      await publish(encodeFacts(messageOf(sequence, own)))
    } catch (error) {
      log.warn({ error: textOf(error) }, 'facts could not be said')
    }
  }
  const again = (): void => {
    dueMs = 0
    wake(spansMs.hint)
  }
  const tick = (): void => {
    timerMs = Number.POSITIVE_INFINITY
    const nowMs = clock.monotonicMs()
    const gapMs = said === undefined ? 0 : said.atMs + spansMs.gap - nowMs
    if (gapMs > 0) {
      wake(gapMs)
      return
    }
    try {
      const own = measure()
      if (said === undefined || nowMs >= dueMs || differsEnough(said.own, own)) void say(own)
    } catch (error) {
      log.warn({ error: textOf(error) }, 'this host could not be measured')
    }
    wake(spansMs.measure)
  }
  return {
    start: () => wake(0),
    changed: () => wake(spansMs.hint),
    met() {
      if (clock.monotonicMs() < newUntilMs) again()
    },
    isFromBefore(message) {
      const before = decodeFacts(message.data)?.sequence ?? 0
      if (before <= sequence) return false
      sequence = before
      newUntilMs = clock.monotonicMs() + spansMs.newcomer
      again()
      return true
    },
    stop() {
      stopped = true
      timer?.cancel()
    },
  }
}

interface Rates {
  take(peerId: string): boolean
  stop(): void
}

/** How often each member may speak. */
function createRates({ clock, limits, members }: GossipComponents): Rates {
  const perSecond = limits.factsPerSecond
  const rates = new Map<string, Rate>()
  const stop = members.onChange(() => {
    for (const peerId of rates.keys()) if (!members.isMember(peerId)) rates.delete(peerId)
  })
  return {
    stop,
    take(peerId) {
      const rate = rates.get(peerId) ?? createRate({ perSecond, most: 5 * perSecond }, clock)
      rates.set(peerId, rate)
      return rate.take(1)
    },
  }
}

interface GossipMetrics {
  count(outcome: Offered | 'limited'): void
  stop(): void
}

function createGossipMetrics(
  view: FillableFactsView,
  { clock, metrics: registry, peers }: GossipComponents,
): GossipMetrics {
  const gauge = (name: string, help: string, value: () => number): string => {
    new Gauge({ name, help, registers: [registry], collect: set })
    return name
    function set(this: Gauge): void {
      this.set(value())
    }
  }
  const counted = 'macfleet_gossip_messages_total'
  const counter = new Counter({
    name: counted,
    help: 'Messages about hosts that came by gossip, by what became of them.',
    labelNames: ['outcome'],
    registers: [registry],
  })
  const oldest = (): number =>
    Math.max(0, ...view.all().map(facts => clock.monotonicMs() - facts.receivedAtMs)) / 1000
  const names = [
    counted,
    gauge('macfleet_peers_connected', 'Hosts that this one is connected with.', () => {
      return peers.connected().length
    }),
    gauge('macfleet_facts_hosts', 'Hosts that were heard by gossip, this one included.', () => {
      return view.all().length
    }),
    gauge('macfleet_facts_oldest_age_seconds', 'Age of the oldest facts of a host.', oldest),
  ]
  return {
    count: outcome => counter.inc({ outcome }),
    stop() {
      for (const name of names) registry.removeSingleMetric(name)
    },
  }
}
