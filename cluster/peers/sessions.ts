import type { Connection } from '@libp2p/interface'
import type { Clock } from '../../base/clock.ts'
import type { Log } from '../../base/log.ts'
import type { AllowList } from './allow-list.ts'
import type { Hello, Refusal } from './hello.ts'
import { type Session, startSession } from './session.ts'

/** More connections than this with one peer are ended. */
const connectionsPerPeer = 4
/** So long a peer that flooded us is not talked to, in milliseconds. */
const quarantineMs = 60_000

/** What the table of connections needs. */
export interface SessionsComponents {
  clock: Clock
  log: Log
  members: AllowList
  own: Hello
  /** Two have greeted. */
  greeted(session: Session): void
  /** One that had greeted is over. */
  ended(session: Session): void
  /** A host of a later era was met. */
  higherEra(era: number): void
}

/** All connections, each with a member: who is none, or none any more, is cut off at once. */
export interface Sessions {
  mayConnect(peerId: string): boolean
  opened(connection: Connection): void
  closed(connection: Connection): void
  /** The session of a connection. */
  of(connection: Connection): Session | undefined
  /** One with this peer that can be used. */
  withPeer(peerId: string): Session | undefined
  all(): Session[]
  /** Ends all connections with a peer, and has none for a while. */
  quarantine(peerId: string, reason: string): void
  stop(): void
}

/** Makes an empty table, which follows the member list. */
export function createSessions(components: SessionsComponents): Sessions {
  const { clock, log, members, own } = components
  const sessions = new Map<string, Session>()
  const quarantined = new Map<string, number>()
  const toldOf = new Set<string>()
  let highestEra = own.era

  const nameOf = (peerId: string): string | undefined =>
    members.list().find(member => member.peerId === peerId)?.name
  const tellOnce = (key: string, fields: object, message: string): void => {
    if (toldOf.has(key) || toldOf.size >= 1_000) return
    toldOf.add(key)
    log.warn(fields, message)
  }
  const refused = (session: Session, refusal: Refusal, hello: Hello): void => {
    const { era, version } = hello
    const fields = { host: nameOf(session.peerId), refusal, era, ownEra: own.era, version }
    tellOnce(`${session.peerId} ${refusal} ${era}`, fields, 'a host was refused')
  }
  const higherEra = ({ era, host }: Hello): void => {
    if (era <= highestEra) return
    highestEra = era
    log.warn({ host, era, ownEra: own.era }, 'the fleet was restored: this host is of a lower era')
    components.higherEra(era)
  }
  const mayConnect = (peerId: string): boolean => {
    if (!members.isMember(peerId)) return false
    const untilMs = quarantined.get(peerId)
    if (untilMs !== undefined && clock.monotonicMs() >= untilMs) quarantined.delete(peerId)
    return !quarantined.has(peerId)
  }
  const allWith = (peerId: string): Session[] =>
    [...sessions.values()].filter(session => session.peerId === peerId)
  const endFollowing = members.onChange(() => {
    for (const session of sessions.values()) {
      if (!members.isMember(session.peerId)) session.end('not a member any more')
    }
    for (const peerId of quarantined.keys()) {
      if (!members.isMember(peerId)) quarantined.delete(peerId)
    }
  })
  return {
    mayConnect,
    opened(connection) {
      const peerId = connection.remotePeer.toString()
      if (!mayConnect(peerId) || allWith(peerId).length >= connectionsPerPeer) {
        return connection.abort(new Error('not welcome'))
      }
      const listener = { greeted: components.greeted, refused, higherEra }
      sessions.set(connection.id, startSession(connection, { clock, own, listener }))
    },
    closed(connection) {
      const session = sessions.get(connection.id)
      sessions.delete(connection.id)
      if (session?.hello() === undefined) return
      // Gossip runs on one connection and does not notice when just that one ends.
      for (const other of allWith(session.peerId)) other.end('another connection was ended')
      components.ended(session)
    },
    of: connection => sessions.get(connection.id),
    withPeer: peerId => allWith(peerId).find(session => session.hello() !== undefined),
    all: () => [...sessions.values()],
    quarantine(peerId, reason) {
      if (!mayConnect(peerId)) return
      quarantined.set(peerId, clock.monotonicMs() + quarantineMs)
      log.warn({ host: nameOf(peerId), reason, quarantineMs }, 'a host misbehaves; it is cut off')
      for (const session of allWith(peerId)) session.end(reason)
    },
    stop: endFollowing,
  }
}
