import { type Clock, sleep } from '../../base/clock.ts'
import { type Log, messageOf } from '../../base/log.ts'
import { type Random, randomInteger } from '../../base/random.ts'
import type { AllowList } from '../peers/allow-list.ts'
import type { Peers } from '../peers/peers.ts'
import type { SignedMessage } from '../peers/signed-message.ts'
import { decodeExchange, encodeExchange, type HandedOn } from './exchange-message.ts'
import { decodeFacts } from './facts-message.ts'
import type { FillableFactsView } from './facts-view.ts'

/** By which a host asks another for all that it has heard. */
export const exchangeProtocol = '/macfleet/facts/1'

const spansMs = {
  /** Facts of this age are asked for anew when a host is connected: some message was missed. */
  stale: 10_000,
  retry: 300,
}
const triesMost = 5
/** Signatures that are verified before others get a turn. */
const verifiedAtOnce = 50
/** Nothing that is handed on counts as older: what is so old says nothing anyway. */
const oldestMs = 24 * 3_600_000

/** What exchanging needs. */
export interface ExchangeComponents {
  clock: Clock
  random: Random
  log: Log
  members: AllowList
  peers: Pick<Peers, 'peerId' | 'connected' | 'onConnected' | 'request' | 'handle'>
  view: FillableFactsView
  isGenuine(message: SignedMessage): boolean
  /** A message of our own, from before we were started, came back. */
  ownReturned(message: SignedMessage): void
}

/** Hands whole views from host to host: a newcomer need not wait for everybody's next message. */
export interface Exchange {
  stop(): void
}

/** Answers who asks, and asks those who are newly connected while something is not known. */
export async function startExchange(components: ExchangeComponents): Promise<Exchange> {
  const { clock, random, log, members, peers, view } = components
  const stopping = new AbortController()
  const { signal } = stopping
  let asking: Promise<void> | undefined

  const isComplete = (): boolean => {
    const nowMs = clock.monotonicMs()
    const fresh = view.all().filter(facts => nowMs - facts.receivedAtMs < spansMs.stale)
    return fresh.length >= members.list().length
  }
  const handOn = (only?: string): Uint8Array => {
    const nowMs = clock.monotonicMs()
    const held = view.held().filter(({ message }) => only === undefined || message.peerId === only)
    return encodeExchange(
      held.map(({ message, receivedAtMs }) => ({ message, ageMs: nowMs - receivedAtMs })),
    )
  }
  const askFor = async (host: string): Promise<void> => {
    const own = handOn(peers.peerId)
    const answer = await peers.request(host, exchangeProtocol, own, { signal })
    await takeIn(components, answer)
  }
  const ask = async (first: string): Promise<void> => {
    let host: string | undefined = first
    for (let tries = 0; tries < triesMost && host !== undefined; tries++) {
      try {
        await askFor(host)
        if (isComplete()) return
      } catch (error) {
        signal.throwIfAborted()
        log.debug({ host, error: messageOf(error) }, 'a host did not hand on its facts')
      }
      await sleep(clock, spansMs.retry, signal)
      if (isComplete()) return
      const others = peers.connected().map(peer => peer.host)
      host = others[randomInteger(random, others.length)]
    }
  }
  await peers.handle(exchangeProtocol, async (_, bytes) => {
    await takeIn(components, bytes)
    return handOn()
  })
  const connected = (host: string): void => {
    if (asking !== undefined || signal.aborted || isComplete()) return
    asking = ask(host)
      .catch(() => {})
      .finally(() => {
        asking = undefined
      })
  }
  const endListening = peers.onConnected(connected)
  for (const { host } of peers.connected()) connected(host)
  return {
    stop() {
      endListening()
      stopping.abort(new Error('gossip stops'))
    },
  }
}

/** Takes what is new, and of that only what its host has signed. */
async function takeIn(components: ExchangeComponents, bytes: Uint8Array): Promise<void> {
  const { clock, members, peers, view, isGenuine, ownReturned } = components
  const entries = decodeExchange(bytes, members.list().length + 64)
  if (entries === undefined) throw new Error('the facts that were handed on make no sense')
  let verified = 0
  for (const { message, ageMs } of entries) {
    if (!isNews(message, view, members)) continue
    if (++verified % verifiedAtOnce === 0) await sleep(clock, 0)
    if (!isGenuine(message)) continue
    if (message.peerId === peers.peerId) ownReturned(message)
    else view.offer(message, Math.min(oldestMs, ageMs))
  }
}

function isNews(
  message: HandedOn['message'],
  view: FillableFactsView,
  members: AllowList,
): boolean {
  const { peerId, data } = message
  if (!members.isMember(peerId)) return false
  return (decodeFacts(data)?.sequence ?? -1) > view.sequenceOf(peerId)
}
