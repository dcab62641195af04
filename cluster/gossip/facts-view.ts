import type { Clock } from '../../base/clock.ts'
import type { FactsView, HostFacts } from '../fleet/facts.ts'
import type { AllowList } from '../peers/allow-list.ts'
import type { SignedMessage } from '../peers/signed-message.ts'
import { decodeFacts } from './facts-message.ts'
import { mayContain } from './image-filter.ts'

/** One host's newest facts, with the proof that it said them. */
export interface HeldFacts {
  message: SignedMessage
  sequence: number
  receivedAtMs: number
}

/** What became of a message that was offered. */
export type Offered = 'new' | 'old' | 'stranger' | 'garbage'

/** A view that is filled by messages. */
export interface FillableFactsView extends FactsView {
  /**
   * Takes what a host says of itself, unless something newer of it is here already.
   * @param message its signature was verified
   * @param ageMs how long ago it was heard first, where that was not now
   */
  offer(message: SignedMessage, ageMs?: number): Offered
  /** The sequence of the newest message of a peer; -1 when none is here. */
  sequenceOf(peerId: string): number
  /** All messages with their proof, to be handed on. */
  held(): HeldFacts[]
  stop(): void
}

/** What a view needs. */
export interface FactsViewComponents {
  clock: Clock
  members: AllowList
}

interface Heard {
  peerId: string
  facts: HostFacts
}

/** An empty view. It holds one message of each member, and what a member said goes with it. */
export function createFactsView(components: FactsViewComponents): FillableFactsView {
  const { clock, members } = components
  const rows = new Map<string, HeldFacts>()
  const byHost = new Map<string, Heard>()
  const listeners = new Set<(host: string) => void>()
  let names = namesOf(members)
  const say = (host: string): void => {
    for (const listener of [...listeners]) listener(host)
  }
  const endFollowing = members.onChange(() => {
    names = namesOf(members)
    for (const [host, { peerId }] of byHost) {
      if (names.get(peerId) === host) continue
      rows.delete(peerId)
      byHost.delete(host)
      say(host)
    }
  })
  return {
    of: host => byHost.get(host)?.facts,
    all: () => [...byHost.values()].map(({ facts }) => facts),
    onChange(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    sequenceOf: peerId => rows.get(peerId)?.sequence ?? -1,
    held: () => [...rows.values()],
    offer(message, ageMs = 0) {
      const { peerId } = message
      const host = names.get(peerId)
      if (host === undefined) return 'stranger'
      const said = decodeFacts(message.data)
      if (said === undefined) return 'garbage'
      const { sequence, images, ...values } = said
      if (sequence <= (rows.get(peerId)?.sequence ?? -1)) return 'old'
      const receivedAtMs = clock.monotonicMs() - Math.max(0, ageMs)
      const mayHoldImage = (digest: string): boolean => mayContain(images, digest)
      const facts = { ...values, host, mayHoldImage, receivedAtMs }
      rows.set(peerId, { message: copyOf(message), sequence, receivedAtMs })
      byHost.set(host, { peerId, facts })
      say(host)
      return 'new'
    },
    stop: endFollowing,
  }
}

function namesOf(members: AllowList): Map<string, string> {
  return new Map(members.list().map(({ peerId, name }) => [peerId, name]))
}

/** Kept for long, so apart from the packet that it came in. */
function copyOf({ peerId, sequence, data, signature }: SignedMessage): SignedMessage {
  return {
    peerId,
    sequence,
    data: Uint8Array.from(data),
    signature: Uint8Array.from(signature),
  }
}
