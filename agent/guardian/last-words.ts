import type { FileHandle } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import type { Clock, Timer } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import { createTail, readableText } from './tail.ts'

/** Where a process's last words go. */
export interface LastWordsInit {
  /** An empty file, open for writing; closed at the end. */
  file: FileHandle
  /** Bytes that are kept, in memory as in the file. */
  limitBytes: number
  /** Bytes that `finish` returns. */
  tailBytes: number
}

/** What last words need. */
export interface LastWordsComponents {
  clock: Clock
  log: Log
}

/** Drains what a process says, so that it never blocks for us, and keeps the end of it. */
export interface LastWords {
  /** Listens to a stream until `finish`. */
  attach(stream: Readable): void
  /** Takes what is still in the pipes (for at most 0.2 s: a grandchild may hold them open). */
  finish(closed: Promise<void>): Promise<string>
}

const flushMs = 100
const drainMs = 200

/**
 * Keeps the last words of one process. A process that floods us is slowed down to `limitBytes` in
 * each 0.1 s, so that it costs the guardian next to nothing.
 */
export function createLastWords(init: LastWordsInit, components: LastWordsComponents): LastWords {
  const { clock, log } = components
  const tail = createTail(init.limitBytes)
  const streams: Readable[] = []
  let unwritten: Uint8Array[] = []
  let unwrittenBytes = 0
  let fileBytes = 0
  let draining = false
  let timer: Timer | undefined
  let writing = Promise.resolve()

  /** Appends while there is room; afterwards the file always is the whole tail, written over. */
  const write = async (): Promise<void> => {
    const fits = fileBytes + unwrittenBytes <= init.limitBytes
    const bytes = fits ? Buffer.concat(unwritten) : tail.bytes()
    const position = fits ? fileBytes : 0
    unwritten = []
    unwrittenBytes = 0
    fileBytes = Math.min(init.limitBytes, position + bytes.length)
    await init.file.write(bytes, 0, bytes.length, position)
  }

  const flush = (): Promise<void> => {
    timer?.cancel()
    timer = undefined
    writing = writing
      .then(() => (unwrittenBytes === 0 ? undefined : write()))
      .catch(error => log.warn({ error: messageOf(error) }, 'last words could not be written'))
      .then(() => {
        for (const stream of streams) stream.resume()
      })
    return writing
  }

  const take = (bytes: Uint8Array): void => {
    tail.push(bytes)
    unwritten.push(bytes)
    unwrittenBytes += bytes.length
    if (draining) {
      if (unwrittenBytes > init.limitBytes) unwritten = [tail.bytes()]
      return
    }
    if (unwrittenBytes >= init.limitBytes) for (const stream of streams) stream.pause()
    timer ??= clock.setTimer(flushMs, () => void flush())
  }

  return {
    attach(stream) {
      streams.push(stream)
      stream.on('data', take)
      stream.on('error', () => {})
    },
    async finish(closed) {
      draining = true
      for (const stream of streams) stream.resume()
      let limit: Timer | undefined
      const waited = new Promise<void>(resolve => {
        limit = clock.setTimer(drainMs, resolve)
      })
      await Promise.race([closed, waited])
      limit?.cancel()
      for (const stream of streams) stream.destroy()
      await flush()
      await init.file.close()
      return readableText(tail.bytes().subarray(-init.tailBytes))
    },
  }
}
