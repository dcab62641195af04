import type { Stream } from '@libp2p/interface'
import type { Clock, Timer } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import type { AllowList, PeerMember } from './allow-list.ts'
import { startDeadline } from './deadline.ts'
import { createGate } from './gate.ts'
import { type Hello, protocolNumber } from './hello.ts'
import type { Identity } from './identity.ts'
import { createNode, type ListenAddress, type Node } from './node.ts'
import { type Redial, startRedial } from './redial.ts'
import { readAll, readAnswer, writeAll } from './requests.ts'
import { createServer, type RequestHandler, type Server } from './server.ts'
import { helloProtocol, type Session } from './session.ts'
import { createSessions, type Sessions } from './sessions.ts'
import { isGenuine, type SignedMessage } from './signed-message.ts'
import { joinTopic, type Topic, type TopicListener } from './topics.ts'

/** Who a host is, and where it listens. */
export interface PeersInit {
  identity: Identity
  /** Its name in the member list. */
  host: string
  listen: ListenAddress
  fleetId: string
  era: number
  /** Of macfleet. */
  version: string
}

/** What peers need. */
export interface PeersComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
  /** Who may be talked to; followed as it changes. */
  members: AllowList
}

/** How a request may be made. */
export interface RequestOptions {
  signal?: AbortSignal
  /** In milliseconds, connecting included; 5,000 by default. */
  timeoutMs?: number
}

/** A host that we are connected with. */
export interface ConnectedPeer {
  host: string
  peerId: string
  version: string
  /** Of its messages (`protocolNumber`). */
  protocol: number
}

/**
 * The other hosts of the fleet, by libp2p. Everything of libp2p is behind this: the simulation and
 * other transports implement the same interface.
 */
export interface Peers {
  readonly peerId: string
  /** Where others can reach it; the port is the one it got when 0 was asked for. */
  readonly port: number
  connected(): ConnectedPeer[]
  /** Called with a host's name when the two have greeted. @returns to be called to end it */
  onConnected(listener: (host: string) => void): () => void
  /** Called with the era when a host of a higher one is met. @returns to be called to end it */
  onHigherEra(listener: (era: number) => void): () => void
  /**
   * Asks a host something; it is connected for that if it is not.
   * @throws peerUnknown, peerUnreachable, peerFailed, tooMany
   */
  request(
    host: string,
    protocol: string,
    bytes: Uint8Array,
    options?: RequestOptions,
  ): Promise<Uint8Array>
  /** Answers what members ask by a protocol, named like /macfleet/facts/1. */
  handle(protocol: string, handler: RequestHandler): Promise<void>
  /** Opens a stream to a host, for as long as both like. @throws as `request` does */
  openStream(host: string, protocol: string, options?: RequestOptions): Promise<Stream>
  /** Listens to what members say to all. */
  join(topic: string, listener: TopicListener): Topic
  /** Whether a message that somebody handed on was said on the topic by who is named in it. */
  isGenuine(topic: string, message: SignedMessage): boolean
  stop(): Promise<void>
}

const requestTimeoutMs = 5_000
const dialTimeoutMs = 5_000
/** Above so many hosts a message goes to a few, which pass it on. */
const floodUpTo = 12
const keepingMs = {
  interval: 5_000,
  /** A connection that is not kept for itself is closed so long after it was last used. */
  unused: 60_000,
  /** From hello to gossip; longer, and the connection is made anew. */
  gossip: 10_000,
}

/** Joins the fleet's network. @throws gossipAddressUnusable */
export async function startPeers(init: PeersInit, components: PeersComponents): Promise<Peers> {
  const { clock, log, limits, members } = components
  const connectedListeners = new Set<(host: string) => void>()
  const eraListeners = new Set<(era: number) => void>()
  const { host, fleetId, era, version, identity } = init
  const own: Hello = { host, fleetId, era, version, protocol: protocolNumber }
  let redial: Redial | undefined
  let node: Node | undefined
  const sessions = createSessions({
    clock,
    log,
    members,
    own,
    greeted(session) {
      node?.libp2p.services.identify
        .identify(session.connection)
        .catch(error => session.end(`identify failed: ${messageOf(error)}`))
      const name = memberOf(members, 'peerId', session.peerId)?.name
      if (name !== undefined) for (const listener of [...connectedListeners]) listener(name)
    },
    ended({ peerId }) {
      redial?.look()
      forget(node, members, peerId)
    },
    higherEra(seen) {
      for (const listener of [...eraListeners]) listener(seen)
    },
  })
  const { mayConnect } = sessions
  const gate = createGate({ ...components, sessions })
  node = await createNode({ identity, listen: init.listen, mayConnect, gate, limits })
  try {
    await serve(node, sessions)
    await node.start()
  } catch (error) {
    sessions.stop()
    throw error
  }
  const connector = createConnector(node, sessions, components)
  redial = startRedial(identity.peerId, {
    ...components,
    isConnected: peerId => sessions.withPeer(peerId) !== undefined,
    dial: async member => void (await connector.connect(member)),
  })
  const endKeeping = keepHouse(node, sessions, redial, connector, clock)
  const server = createServer({ ...components, sessions })
  const parts: Parts = { node, sessions, server, connector, init, components }
  const on = <T>(listeners: Set<T>, listener: T): (() => void) => {
    listeners.add(listener)
    return () => listeners.delete(listener)
  }
  return {
    ...createMethods(parts),
    onConnected: listener => on(connectedListeners, listener),
    onHigherEra: listener => on(eraListeners, listener),
    async stop() {
      endKeeping()
      redial?.stop()
      sessions.stop()
      server.stop()
      for (const session of sessions.all()) session.end('this host stops')
      await parts.node.libp2p.stop()
    },
  }
}

interface Parts {
  node: Node
  sessions: Sessions
  server: Server
  connector: Connector
  init: PeersInit
  components: PeersComponents
}

function createMethods(parts: Parts): Omit<Peers, 'onConnected' | 'onHigherEra' | 'stop'> {
  const { node, sessions, server, connector, init, components } = parts
  const { clock, limits, members } = components
  const { peerId } = init.identity
  let asking = 0
  return {
    peerId,
    port: portOf(node) ?? init.listen.port,
    connected: () =>
      members.list().flatMap(({ name: host, peerId }) => {
        const hello = sessions.withPeer(peerId)?.hello()
        if (hello === undefined) return []
        const { version, protocol } = hello
        return [{ host, peerId, version, protocol }]
      }),
    async request(host, protocol, bytes, options = {}) {
      const limit = limits.peerRequestsWaiting
      if (asking >= limit) throw failure('tooMany', { limit, what: 'requests to other hosts' })
      const deadline = startDeadline(clock, options.timeoutMs ?? requestTimeoutMs, options.signal)
      asking++
      try {
        const stream = await connector.open(host, protocol, deadline.signal)
        return await ask(host, stream, bytes, deadline.signal, limits.peerAnswerBytes)
      } finally {
        asking--
        deadline.clear()
      }
    },
    async openStream(host, protocol, options = {}) {
      const deadline = startDeadline(clock, options.timeoutMs ?? requestTimeoutMs, options.signal)
      try {
        return await connector.open(host, protocol, deadline.signal)
      } finally {
        deadline.clear()
      }
    },
    async handle(protocol, handler) {
      await node.libp2p.handle(protocol, server.serving(handler), {
        maxInboundStreams: limits.peerRequestsAtOnce,
        maxOutboundStreams: limits.peerRequestsWaiting,
      })
    },
    isGenuine,
    join: (topic, listener) =>
      joinTopic(topic, listener, {
        pubsub: node.libp2p.services.pubsub,
        self: peerId,
        isMember: members.isMember,
        flood: () => members.list().length <= floodUpTo,
        mostBytes: limits.gossipMessageBytes,
      }),
  }
}

async function ask(
  host: string,
  stream: Stream,
  bytes: Uint8Array,
  signal: AbortSignal,
  mostBytes: number,
): Promise<Uint8Array> {
  const onAbort = (): void => stream.abort(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    // What can not be sent is told by what comes back.
    const written = writeAll(stream, [bytes], signal).catch(() => {})
    const answer = await readAll(stream, mostBytes)
    await written
    return readAnswer(answer)
  } catch (error) {
    stream.abort(new Error('not wanted any more'))
    signal.throwIfAborted()
    throw failure('peerFailed', { host, detail: messageOf(error) }, { cause: error })
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

interface Connector {
  connect(member: PeerMember, signal?: AbortSignal): Promise<Session>
  open(host: string, protocol: string, signal: AbortSignal): Promise<Stream>
  /** Monotonic; undefined when it was used for no request. */
  lastUsedMs(session: Session): number | undefined
}

/** Dials members: only them, only at their address, and says so when it does not work. */
function createConnector(
  { libp2p, addressOf }: Node,
  sessions: Sessions,
  { clock, members }: PeersComponents,
): Connector {
  const usedMs = new WeakMap<Session, number>()
  const connect = async (member: PeerMember, signal?: AbortSignal): Promise<Session> => {
    const { peerId, address } = member
    const there = sessions.withPeer(peerId)
    if (there !== undefined) return there
    const deadline = startDeadline(clock, dialTimeoutMs, signal)
    try {
      const target = addressOf(peerId, { host: address.host, port: address.gossipPort })
      const connection = await libp2p.dial(target, { signal: deadline.signal })
      const session = sessions.of(connection)
      if (session === undefined) throw new Error('the connection was ended at once')
      await session.greeted
      return session
    } finally {
      deadline.clear()
    }
  }
  const unreachable = (host: string, error: unknown): Error =>
    failure('peerUnreachable', { host, detail: messageOf(error) }, { cause: error })
  return {
    connect,
    async open(host, protocol, signal) {
      const member = memberOf(members, 'name', host)
      if (member === undefined) throw failure('peerUnknown', { host })
      try {
        signal.throwIfAborted()
        const session = await connect(member, signal)
        usedMs.set(session, clock.monotonicMs())
        return await session.connection.newStream(protocol, { signal })
      } catch (error) {
        throw unreachable(host, error)
      }
    },
    lastUsedMs: session => usedMs.get(session),
  }
}

/** Takes in connections and hellos. */
async function serve(node: Node, sessions: Sessions): Promise<void> {
  const { libp2p } = node
  libp2p.addEventListener('connection:open', ({ detail }) => sessions.opened(detail))
  libp2p.addEventListener('connection:close', ({ detail }) => sessions.closed(detail))
  await libp2p.handle(helloProtocol, (stream, connection) => {
    const session = sessions.of(connection)
    if (session === undefined) stream.abort(new Error('not welcome'))
    else session.answer(stream)
  })
}

/** Ends what is of no use: connections that were made for a request, and those without gossip. */
function keepHouse(
  { libp2p }: Node,
  sessions: Sessions,
  redial: Redial,
  connector: Connector,
  clock: Clock,
): () => void {
  const greetedMs = new WeakMap<Session, number>()
  let timer: Timer | undefined
  const keep = (): void => {
    const nowMs = clock.monotonicMs()
    const gossiping = new Set(libp2p.services.pubsub.getPeers().map(peer => peer.toString()))
    for (const session of sessions.all()) {
      if (session.hello() === undefined) continue
      const sinceMs = greetedMs.get(session) ?? nowMs
      greetedMs.set(session, sinceMs)
      const { peerId } = session
      const silent = !gossiping.has(peerId) && nowMs - sinceMs > keepingMs.gossip
      const kept = session.connection.direction === 'inbound' || redial.isNeighbour(peerId)
      const unusedMs = nowMs - Math.max(sinceMs, connector.lastUsedMs(session) ?? 0)
      if (silent) session.end('there is no gossip on it')
      else if (!kept && unusedMs > keepingMs.unused) session.end('it is not needed')
    }
    timer = clock.setTimer(keepingMs.interval, keep)
  }
  timer = clock.setTimer(keepingMs.interval, keep)
  return () => timer?.cancel()
}

function memberOf(members: AllowList, by: 'name' | 'peerId', value: string) {
  return members.list().find(member => member[by] === value)
}

/** What the library remembers of a host goes with its membership. */
function forget(node: Node | undefined, members: AllowList, peerId: string): void {
  if (node === undefined || members.isMember(peerId)) return
  node.libp2p.peerStore.delete(node.peerIdOf(peerId)).catch(() => {})
}

function portOf({ libp2p }: Node): number | undefined {
  const text = libp2p
    .getMultiaddrs()
    .map(address => /\/tcp\/(\d+)/.exec(address.toString())?.[1])
    .find(port => port !== undefined)
  return text === undefined ? undefined : Number(text)
}
