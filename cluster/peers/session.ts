import type { Connection, MessageStreamEvents, Stream } from '@libp2p/interface'
import { type Clock, type Timer, withTimeout } from '../../base/clock.ts'
import { decodeHello, encodeHello, type Hello, type Refusal, refusalOf } from './hello.ts'
import { createRate } from './rate.ts'

/** The protocol by which two hosts greet each other and then say that they live. */
export const helloProtocol = '/macfleet/hello/1'

/** How long things may take on a connection, in milliseconds. */
const spansMs = {
  /** From the connection to the hello. */
  hello: 5_000,
  /** Between two signs of life. */
  heartbeat: 3_000,
  /** A peer that was silent for so long is taken for dead, and the connection is ended. */
  silence: 15_000,
}
/** Bytes on the hello's stream: a hello and a sign of life now and then. */
const helloRate = { perSecond: 64, most: 2_048 }
const longestFrame = 1_024

/** What happens on a connection. */
export interface SessionListener {
  /** They have greeted each other: it can be used. */
  greeted(session: Session): void
  /** The peer said hello and is not to be talked to. The connection is ended. */
  refused(session: Session, refusal: Refusal, hello: Hello): void
  /** The peer is of a later era than we are. */
  higherEra(hello: Hello): void
}

/** One connection to a member, from its opening on. */
export interface Session {
  readonly connection: Connection
  readonly peerId: string
  /** What the peer said of itself; undefined until then. */
  hello(): Hello | undefined
  /** Resolves when both have greeted; rejects when that does not come to be. */
  readonly greeted: Promise<void>
  /** Takes the stream on which the peer says hello. */
  answer(stream: Stream): void
  /** Ends the connection at once. */
  end(reason: string): void
}

/** What a session needs. */
export interface SessionComponents {
  clock: Clock
  own: Hello
  listener: SessionListener
}

/** Who dialled says hello; who was dialled waits for it. Neither goes on without. */
export function startSession(connection: Connection, components: SessionComponents): Session {
  const { clock, own, listener } = components
  const arrival = Promise.withResolvers<void>()
  // Nobody may wait for it.
  arrival.promise.catch(() => {})
  let heard: Hello | undefined
  let ended = false
  let lines: Lines | undefined

  const end = (reason: string): void => {
    if (ended) return
    ended = true
    lines?.stop()
    arrival.reject(new Error(reason))
    connection.abort(new Error(reason))
  }
  const greet = (frame: Uint8Array, answered: () => void): void => {
    const hello = decodeHello(frame)
    const refusal = hello === undefined ? undefined : refusalOf(own, hello)
    if (hello === undefined) {
      end('the peer did not say hello')
    } else if (refusal !== undefined) {
      listener.refused(session, refusal, hello)
      end(`refused: ${refusal}`)
    } else {
      if (hello.era > own.era) listener.higherEra(hello)
      heard = hello
      answered()
      arrival.resolve()
      listener.greeted(session)
    }
  }
  const open = (stream: Stream, sayFirst: boolean): void => {
    if (lines !== undefined || ended) {
      stream.abort(new Error('there was a hello already'))
      return
    }
    const say = (): void => lines?.send(encodeHello(own))
    lines = createLines(stream, clock, {
      frame: bytes => (heard === undefined ? greet(bytes, sayFirst ? () => {} : say) : undefined),
      end,
    })
    if (sayFirst) say()
  }
  const session: Session = {
    connection,
    peerId: connection.remotePeer.toString(),
    hello: () => heard,
    greeted: arrival.promise,
    answer: stream => (connection.direction === 'inbound' ? open(stream, false) : end('misplaced')),
    end,
  }
  connection.addEventListener('close', () => end('the connection was closed'), { once: true })
  const late = (): Error => new Error('the peer said no hello in time')
  withTimeout(clock, spansMs.hello, arrival.promise, late).catch(error => end(error.message))
  if (connection.direction === 'outbound') {
    connection.newStream(helloProtocol).then(
      stream => open(stream, true),
      error => end(error.message),
    )
  }
  return session
}

interface Lines {
  send(frame: Uint8Array): void
  stop(): void
}

/** Frames with a length of two bytes before them; empty ones are signs of life. */
function createLines(
  stream: Stream,
  clock: Clock,
  { frame, end }: { frame(bytes: Uint8Array): void; end(reason: string): void },
): Lines {
  const rate = createRate(helloRate, clock)
  let pending = Buffer.alloc(0)
  let heardMs = clock.monotonicMs()
  let stopped = false
  let timer: Timer | undefined

  const take = (chunk: Uint8Array): void => {
    if (!rate.take(chunk.length)) {
      end('too much was said on the hello stream')
      return
    }
    heardMs = clock.monotonicMs()
    pending = Buffer.concat([pending, chunk])
    while (pending.length >= 2) {
      const length = pending.readUInt16BE()
      if (length > longestFrame) end('a hello is too long')
      if (stopped || pending.length < 2 + length) return
      const bytes = pending.subarray(2, 2 + length)
      pending = pending.subarray(2 + length)
      if (length > 0) frame(bytes)
    }
  }
  const send = (bytes: Uint8Array): void => {
    const head = Buffer.alloc(2)
    head.writeUInt16BE(bytes.length)
    try {
      stream.send(Buffer.concat([head, bytes]))
    } catch {
      end('the hello stream was closed')
    }
  }
  const beat = (): void => {
    if (clock.monotonicMs() - heardMs > spansMs.silence) end('the peer fell silent')
    else send(Buffer.alloc(0))
    if (!stopped) timer = clock.setTimer(spansMs.heartbeat, beat)
  }
  const onMessage = ({ data }: MessageStreamEvents['message']): void => take(data.subarray())
  stream.addEventListener('message', onMessage)
  stream.addEventListener('close', () => end('the hello stream was closed'), { once: true })
  stream.addEventListener('remoteCloseWrite', () => end('the peer went'), { once: true })
  timer = clock.setTimer(spansMs.heartbeat, beat)
  return {
    send,
    stop() {
      stopped = true
      timer?.cancel()
      stream.removeEventListener('message', onMessage)
    },
  }
}
