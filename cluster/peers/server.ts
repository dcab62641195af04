import type { Connection, Stream } from '@libp2p/interface'
import type { Clock } from '../../base/clock.ts'
import { MacfleetError } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import type { AllowList } from './allow-list.ts'
import { startDeadline } from './deadline.ts'
import { createRate, type Rate } from './rate.ts'
import { answerDone, answerFailed, readAll, writeAll } from './requests.ts'
import type { Sessions } from './sessions.ts'

/** Who asks: by the key that it proved to hold, and the member list. */
export interface Asker {
  host: string
  peerId: string
}

/** Answers a request. What it throws is told to the asker if it is an error of the table. */
export type RequestHandler = (
  asker: Asker,
  bytes: Uint8Array,
  signal: AbortSignal,
) => Promise<Uint8Array> | Uint8Array

/** What serving needs. */
export interface ServerComponents {
  clock: Clock
  log: Log
  limits: Limits
  members: AllowList
  sessions: Sessions
}

/** Answers members. */
export interface Server {
  /** What answers on one protocol, as the library calls it. */
  serving(handler: RequestHandler): (stream: Stream, connection: Connection) => Promise<void>
  stop(): void
}

/** Reading the request and answering it, in milliseconds. */
const servingMs = 10_000

/** Makes protocol handlers, each of which looks again who it is that asks. */
export function createServer(components: ServerComponents): Server {
  const { clock, log, limits, members, sessions } = components
  const rates = new Map<string, Rate>()
  const endFollowing = members.onChange(() => {
    for (const peerId of rates.keys()) if (!members.isMember(peerId)) rates.delete(peerId)
  })
  const rateOf = (peerId: string): Rate => {
    const perSecond = limits.peerRequestsPerSecond
    const rate = rates.get(peerId) ?? createRate({ perSecond, most: 4 * perSecond }, clock)
    rates.set(peerId, rate)
    return rate
  }
  const admit = async (connection: Connection): Promise<Asker> => {
    const peerId = connection.remotePeer.toString()
    await sessions.of(connection)?.greeted
    const member = members.list().find(candidate => candidate.peerId === peerId)
    if (member === undefined || sessions.of(connection) === undefined) {
      throw new Error('not welcome')
    }
    if (!rateOf(peerId).take(1)) throw new Error('it asks too often')
    return { host: member.name, peerId }
  }
  const answer = async (
    asker: Asker,
    handler: RequestHandler,
    bytes: Uint8Array,
    signal: AbortSignal,
  ): Promise<Uint8Array[]> => {
    try {
      const answered = await handler(asker, bytes, signal)
      if (answered.length > limits.peerAnswerBytes) throw new Error('the answer is too long')
      return answerDone(answered)
    } catch (error) {
      log.debug({ host: asker.host, error: messageOf(error) }, 'a request of a peer failed')
      return answerFailed(error instanceof MacfleetError ? error.message : 'it failed')
    }
  }
  return {
    stop: endFollowing,
    serving: handler => async (stream, connection) => {
      const deadline = startDeadline(clock, servingMs)
      const { signal } = deadline
      const onAbort = (): void => stream.abort(signal.reason)
      signal.addEventListener('abort', onAbort, { once: true })
      try {
        const asker = await admit(connection)
        const bytes = await readAll(stream, limits.peerRequestBytes)
        await writeAll(stream, await answer(asker, handler, bytes, signal), signal)
      } catch (error) {
        log.debug({ error: messageOf(error) }, 'a request of a peer was not served')
        stream.abort(new Error('not served'))
      } finally {
        deadline.clear()
      }
    },
  }
}
