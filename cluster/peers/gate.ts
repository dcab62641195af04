import type { GossipSubComponents } from '@libp2p/gossipsub'
import type { Connection, MessageStreamEvents, Stream, StreamHandler } from '@libp2p/interface'
import type { Clock } from '../../base/clock.ts'
import type { Limits } from '../../base/limits.ts'
import { createRate } from './rate.ts'
import type { Sessions } from './sessions.ts'

type Registrar = GossipSubComponents['registrar']

/** What stands before the library's own protocols. */
export interface Gate {
  /** Lets a peer's streams through when the two have greeted. */
  greeted(registrar: Registrar): Registrar
  /** The same, and counts what comes: gossipsub reads whatever is sent, as fast as it is sent. */
  metered(registrar: Registrar): Registrar
}

/** What a gate needs. */
export interface GateComponents {
  clock: Clock
  limits: Pick<Limits, 'gossipBytesPerSecond'>
  sessions: Pick<Sessions, 'of' | 'quarantine'>
}

/**
 * Makes the gate. It wraps the handlers and is no middleware of the library's, for there the list
 * of a protocol's middleware grows with every stream, and its handler runs once more each time
 * (libp2p 3.3.11).
 */
export function createGate({ clock, limits, sessions }: GateComponents): Gate {
  const perSecond = limits.gossipBytesPerSecond
  const admit = async (connection: Connection): Promise<void> => {
    const session = sessions.of(connection)
    if (session === undefined) throw new Error('not welcome')
    await session.greeted
  }
  const meter = (stream: Stream, peerId: string): void => {
    const rate = createRate({ perSecond, most: 4 * perSecond }, clock)
    stream.addEventListener('message', ({ data }: MessageStreamEvents['message']) => {
      if (!rate.take(data.byteLength)) sessions.quarantine(peerId, 'it floods us with gossip')
    })
  }
  return {
    greeted: registrar =>
      wrapHandlers(registrar, handler => async (stream, connection) => {
        await admit(connection)
        await handler(stream, connection)
      }),
    metered: registrar => ({
      ...wrapHandlers(registrar, handler => async (stream, connection) => {
        await admit(connection)
        await handler(stream, reliable(connection, sessions))
        // Only after the protocol itself listens: what came early would be delivered to us alone.
        clock.setTimer(0, () => meter(stream, connection.remotePeer.toString()))
      }),
      register: (protocol, topology, options) =>
        registrar.register(
          protocol,
          {
            ...topology,
            onConnect: (peerId, connection) =>
              topology.onConnect?.(peerId, reliable(connection, sessions)),
          },
          options,
        ),
    }),
  }
}

/**
 * A connection whose streams are open when they are given out. A stream that was reset while it was
 * being opened would be taken for a good one by gossipsub 17.1.1, for ever, over all connections
 * with that peer to come. Without any, the connection is of no use to gossip, and is made anew.
 */
function reliable(connection: Connection, sessions: Pick<Sessions, 'of'>): Connection {
  const newStream: Connection['newStream'] = async (protocols, options) => {
    try {
      const stream = await connection.newStream(protocols, options)
      if (stream.status !== 'open') throw new Error('the stream was reset')
      return stream
    } catch (error) {
      sessions.of(connection)?.end('there is no stream for gossip')
      throw error
    }
  }
  return new Proxy(connection, {
    get(target, key) {
      if (key === 'newStream') return newStream
      const value: unknown = Reflect.get(target, key, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

function wrapHandlers(
  registrar: Registrar,
  wrap: (handler: StreamHandler) => StreamHandler,
): Registrar {
  return {
    handle: (protocol, handler, options) => registrar.handle(protocol, wrap(handler), options),
    unhandle: (protocols, options) => registrar.unhandle(protocols, options),
    getHandler: protocol => registrar.getHandler(protocol),
    getProtocols: () => registrar.getProtocols(),
    register: (protocol, topology, options) => registrar.register(protocol, topology, options),
    unregister: id => registrar.unregister(id),
    getTopologies: protocol => registrar.getTopologies(protocol),
    use: (protocol, middleware) => registrar.use(protocol, middleware),
    unuse: protocol => registrar.unuse(protocol),
    getMiddleware: protocol => registrar.getMiddleware(protocol),
  }
}
