import { type ClientHttp2Stream, constants, type OutgoingHttpHeaders } from 'node:http2'
import type { Clock, Timer } from '../../base/clock.ts'
import type { Limits } from '../../base/limits.ts'
import { messageOf } from '../../base/log.ts'
import type { PeerConnection } from './peer-connection.ts'

/** What a question needs. */
export interface AskComponents {
  clock: Clock
  limits: Pick<Limits, 'transferStallMs'>
  connection: PeerConnection
}

/** A question to another host. */
export interface Question {
  headers: OutgoingHttpHeaders
  body?: Buffer
}

/** An answer whose head has come. */
export interface Answer {
  status: number
  /**
   * Lets the body come: `onPiece` is called for each piece, and says whether more may come before
   * `next` is called again. What it throws ends the answer, and is thrown by `next`.
   */
  read(onPiece: (piece: Buffer) => boolean): AnswerBody
  /** To be called at last, whatever happened: what has not come is not sent any more. */
  end(): void
}

/** The body of an answer. */
export interface AnswerBody {
  /**
   * Waits until something is ready, or nothing more comes: then true.
   * @throws sourceFailed when it breaks off or stands still; the signal's reason
   */
  next(isReady: () => boolean): Promise<boolean>
}

/** Asks another host. @throws sourceFailed; the signal's reason */
export async function askPeer(
  { headers, body }: Question,
  components: AskComponents,
  signal: AbortSignal,
): Promise<Answer> {
  const { connection } = components
  const { session, release } = await connection.use(signal)
  let stream: ClientHttp2Stream
  try {
    stream = session.request(headers, { endStream: body === undefined })
    if (body !== undefined) stream.end(body)
  } catch (error) {
    release()
    throw connection.failed(messageOf(error), error)
  }
  const course = followStream(stream, components, signal)
  const end = () => {
    course.forget()
    if (!stream.closed) stream.close(constants.NGHTTP2_CANCEL)
    release()
  }
  let status: number | undefined
  stream.once('response', head => {
    status = head[':status']
    course.wake()
  })
  try {
    while (status === undefined) {
      if (course.isOver()) throw connection.failed('it gave no answer')
      await course.change()
    }
  } catch (error) {
    end()
    throw error
  }
  return {
    status,
    end,
    read(onPiece) {
      let awaited = () => false
      stream.on('data', (piece: Buffer) => {
        course.noteProgress()
        try {
          if (!onPiece(piece)) stream.pause()
          // Pieces are small and many: nobody is woken before there is something to take.
          if (awaited()) course.wake()
        } catch (error) {
          course.fail(error)
        }
      })
      return {
        async next(isReady) {
          awaited = isReady
          while (!isReady()) {
            if (course.isOver()) return true
            stream.resume()
            await course.change()
          }
          return false
        },
      }
    },
  }
}

/** What becomes of a stream. */
interface Course {
  /** Ended well. @throws when it ended in another way */
  isOver(): boolean
  /** Resolves with the next thing that happens; nothing for too long is a failure. */
  change(): Promise<void>
  wake(): void
  /** Something came, though not enough to wake anybody. */
  noteProgress(): void
  fail(error: unknown): void
  forget(): void
}

function followStream(
  stream: ClientHttp2Stream,
  { clock, limits, connection }: AskComponents,
  signal: AbortSignal,
): Course {
  let hasEnded = false
  let isClosed = false
  let failed: { error: unknown } | undefined
  let waiting: (() => void) | undefined
  let progress = 0
  const wake = (): void => {
    waiting?.()
    waiting = undefined
  }
  const fail = (error: unknown): void => {
    failed ??= { error }
    if (!stream.closed) stream.close(constants.NGHTTP2_CANCEL)
    wake()
  }
  const onAbort = () => fail(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  if (signal.aborted) onAbort()
  stream.on('error', error => fail(connection.failed(messageOf(error), error)))
  stream.on('aborted', () => fail(connection.failed('it broke off')))
  stream.once('end', () => {
    hasEnded = true
  })
  stream.once('close', () => {
    isClosed = true
    if (!hasEnded || stream.rstCode !== 0) failed ??= { error: connection.failed('it broke off') }
    wake()
  })
  return {
    wake,
    fail,
    forget: () => signal.removeEventListener('abort', onAbort),
    isOver() {
      if (failed !== undefined) throw failed.error
      return isClosed
    },
    noteProgress() {
      progress++
    },
    change() {
      return new Promise(resolve => {
        let timer: Timer
        const watch = (seen: number): void => {
          timer = clock.setTimer(limits.transferStallMs, () => {
            if (progress !== seen) watch(progress)
            else fail(connection.failed(`nothing has come for ${limits.transferStallMs} ms`))
          })
        }
        watch(progress)
        waiting = () => {
          timer.cancel()
          resolve()
        }
      })
    },
  }
}
