import type { GossipSub, Message } from '@libp2p/gossipsub'
import type { SignedMessage } from './signed-message.ts'

/**
 * What becomes of a message: `Accept` passes it on, `Ignore` does not, `Reject` neither, and its
 * sender was wrong to send it.
 */
export type Verdict = 'Accept' | 'Ignore' | 'Reject'

/** How a topic is listened to. */
export interface TopicListener {
  /**
   * Called with each message once, the own ones too. The signature is verified, and the sender is a
   * member. Must not throw, and must be quick.
   */
  receive(message: SignedMessage): Verdict
  /** Another peer listens to the topic now: what is said from here on reaches it. */
  joined(peerId: string): void
}

/** A topic that was joined. */
export interface Topic {
  /** Says something to all members. */
  publish(data: Uint8Array): Promise<void>
  leave(): void
}

/** What joining a topic needs. */
export interface TopicComponents {
  pubsub: GossipSub
  self: string
  isMember(peerId: string): boolean
  /** Whether each message goes to all connected peers at once: quick, and dear with many. */
  flood(): boolean
  mostBytes: number
}

/** The bytes that gossipsub puts around the data and the topic: keys, signature, lengths. */
const overheadBytes = 164

/** Joins a topic. Only one at a time may have it. */
export function joinTopic(
  name: string,
  listener: TopicListener,
  components: TopicComponents,
): Topic {
  const { pubsub, self, isMember, flood, mostBytes } = components
  const mostDataBytes = mostBytes - overheadBytes - name.length
  const judge = (message: Message): Verdict => {
    if (message.type !== 'signed') return 'Reject'
    const peerId = message.from.toString()
    if (!isMember(peerId)) return 'Ignore'
    if (message.data.length > mostDataBytes) return 'Reject'
    const { sequenceNumber: sequence, data, signature } = message
    return listener.receive({ peerId, sequence, data, signature })
  }
  const onOwn = ({ detail }: CustomEvent<Message>): void => {
    if (detail.topic !== name || detail.type !== 'signed') return
    if (detail.from.toString() === self) judge(detail)
  }
  const onSubscription: Parameters<typeof addSubscriptionListener>[1] = ({ detail }) => {
    const joined = detail.subscriptions.some(({ topic, subscribe }) => subscribe && topic === name)
    const peerId = detail.peerId.toString()
    if (joined && isMember(peerId)) listener.joined(peerId)
  }
  pubsub.topicValidators.set(name, (_, message) => libraryVerdicts[judge(message)])
  pubsub.addEventListener('message', onOwn)
  addSubscriptionListener(pubsub, onSubscription)
  pubsub.subscribe(name)
  return {
    async publish(data) {
      if (data.length > mostDataBytes) throw new Error(`${data.length} bytes are too many`)
      await (pubsub as FloodingPubSub).publish(name, data, { floodPublish: flood() })
    },
    leave() {
      try {
        pubsub.unsubscribe(name)
      } catch {
        // It throws when the node was stopped before; then nobody listens anyway.
      }
      pubsub.topicValidators.delete(name)
      pubsub.removeEventListener('message', onOwn)
      pubsub.removeEventListener('subscription-change', onSubscription)
    },
  }
}

/** The library takes this third argument; its interface does not show it. */
interface FloodingPubSub {
  publish(topic: string, data: Uint8Array, options: { floodPublish: boolean }): Promise<unknown>
}

type SubscriptionListener = (
  event: CustomEvent<{
    peerId: { toString(): string }
    subscriptions: { topic: string; subscribe: boolean }[]
  }>,
) => void

function addSubscriptionListener(pubsub: GossipSub, listener: SubscriptionListener): void {
  pubsub.addEventListener('subscription-change', listener)
}

/** TopicValidatorResult of the library, whose values are text; importing it would load it all. */
const libraryVerdicts = { Accept: 'accept', Ignore: 'ignore', Reject: 'reject' } as Record<
  Verdict,
  never
>
