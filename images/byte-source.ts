import { constants } from 'node:fs'
import { type FileHandle, lstat, open, realpath } from 'node:fs/promises'
import { dirname } from 'node:path'
import { failure } from '../base/errors.ts'
import { messageOf } from '../base/log.ts'

/** Bytes from outside: a file on this host, or a stream, whose size may be known. */
export type ByteSource =
  | { path: string }
  | { stream: AsyncIterable<Uint8Array>; sizeBytes?: number }

/** A file opened for reading. */
export interface SourceFile {
  handle: FileHandle
  sizeBytes: number
  /** What it takes on its disk: less than its size when it has holes. */
  allocatedBytes: number
}

/**
 * Opens a regular file; a pipe or a device is none.
 * @throws imageSourceUnreadable
 */
export async function openSourceFile(path: string): Promise<SourceFile> {
  let handle: FileHandle | undefined
  try {
    // Without O_NONBLOCK, opening a pipe would wait for somebody to write.
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const stats = await handle.stat()
    if (!stats.isFile()) throw new Error('it is not a regular file')
    return { handle, sizeBytes: stats.size, allocatedBytes: stats.blocks * 512 }
  } catch (error) {
    await handle?.close()
    throw failure('imageSourceUnreadable', { path, detail: messageOf(error) }, { cause: error })
  }
}

/** The first bytes of a file, fewer when it is smaller. */
export async function readHead(handle: FileHandle, lengthBytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(lengthBytes)
  let length = 0
  while (length < lengthBytes) {
    const { bytesRead } = await handle.read(buffer, length, lengthBytes - length, length)
    if (bytesRead === 0) break
    length += bytesRead
  }
  return buffer.subarray(0, length)
}

/** The first bytes of a stream, and the whole stream, those first bytes included. */
export async function peekStream(
  stream: AsyncIterable<Uint8Array>,
  lengthBytes: number,
): Promise<{ head: Buffer; whole: AsyncIterable<Uint8Array> }> {
  const iterator = stream[Symbol.asyncIterator]()
  const parts: Uint8Array[] = []
  let length = 0
  while (length < lengthBytes) {
    const next = await iterator.next()
    if (next.done) break
    parts.push(next.value)
    length += next.value.length
  }
  return { head: Buffer.concat(parts).subarray(0, lengthBytes), whole: replay(parts, iterator) }
}

async function* replay(
  parts: Uint8Array[],
  iterator: AsyncIterator<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  try {
    yield* parts.splice(0)
    for (let next = await iterator.next(); !next.done; next = await iterator.next())
      yield next.value
  } finally {
    await iterator.return?.()
  }
}

/** The same stream, ended by the signal even while its source says nothing. */
export async function* endWith(
  signal: AbortSignal,
  stream: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const iterator = stream[Symbol.asyncIterator]()
  let giveUp: (reason: unknown) => void = () => {}
  const onAbort = () => giveUp(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  const nextPart = () =>
    new Promise<IteratorResult<Uint8Array>>((resolve, reject) => {
      giveUp = reject
      iterator.next().then(resolve, reject)
    })
  try {
    for (;;) {
      signal.throwIfAborted()
      const next = await nextPart()
      if (next.done) return
      yield next.value
    }
  } finally {
    signal.removeEventListener('abort', onAbort)
    // Not waited for: a source that is silent does not answer this either.
    iterator.return?.().catch(() => {})
  }
}

/**
 * Whether nobody but root and ourselves can change a file or put another in its place: then what
 * was inspected is what a tool will open a moment later. A sticky folder (/tmp) protects its
 * entries.
 */
export async function isOursAlone(path: string): Promise<boolean> {
  const own = process.getuid?.() ?? 0
  let at = await realpath(path)
  for (;;) {
    const { uid, mode } = await lstat(at)
    const writableByOthers = (mode & 0o022) !== 0
    const sticky = (mode & 0o1000) !== 0
    if ((uid !== 0 && uid !== own) || (writableByOthers && !sticky)) return false
    if (dirname(at) === at) return true
    at = dirname(at)
  }
}
