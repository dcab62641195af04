import { watch } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { type Clock, sleep } from '../base/clock.ts'
import { isErrno } from '../base/files.ts'
import { openGuestFile } from './guest-file.ts'

/** How much of a log's end. */
export interface LogTail {
  /** At most so many bytes. */
  limitBytes: number
  /** At most so many lines, a last one without an end included. */
  lines?: number
}

const lineFeed = 0x0a
const noBytes = Buffer.alloc(0)

/** The older part of a log that has been rotated. */
export function olderLog(path: string): string {
  return `${path}.1`
}

/**
 * The end of a serial log, reaching into the older file when the current one is short.
 * Empty when there is no log yet.
 * @throws guestFileRefused
 */
export async function readLogTail(path: string, tail: LogTail): Promise<Buffer> {
  return (await readTail(path, tail)).bytes
}

/** Bytes of a log, and the offset in its current file where they stop. */
interface Piece {
  bytes: Buffer
  offset: number
}

async function readTail(path: string, tail: LogTail): Promise<Piece> {
  const current = await readEnd(path, tail.limitBytes)
  const leftBytes = tail.limitBytes - current.bytes.length
  const older = leftBytes > 0 ? (await readEnd(olderLog(path), leftBytes)).bytes : noBytes
  const bytes = lastLines(Buffer.concat([older, current.bytes]), tail.lines)
  return { bytes, offset: current.offset }
}

async function readEnd(path: string, limitBytes: number): Promise<Piece> {
  const handle = await openIfThere(path)
  if (handle === undefined) return { bytes: noBytes, offset: 0 }
  try {
    const { size } = await handle.stat()
    const from = Math.max(0, size - limitBytes)
    const bytes = await readFrom(handle, from, limitBytes)
    return { bytes, offset: from + bytes.length }
  } finally {
    await handle.close()
  }
}

/** Reads from `offset` up to the end of the file or `limitBytes`, whichever comes first. */
async function readFrom(handle: FileHandle, offset: number, limitBytes: number): Promise<Buffer> {
  const { size } = await handle.stat()
  const buffer = Buffer.alloc(Math.max(0, Math.min(limitBytes, size - offset)))
  let filled = 0
  while (filled < buffer.length) {
    const { bytesRead } = await handle.read(buffer, filled, buffer.length - filled, offset + filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return buffer.subarray(0, filled)
}

async function openIfThere(path: string, flags?: number): Promise<FileHandle | undefined> {
  try {
    return await openGuestFile(path, flags)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
}

function lastLines(bytes: Buffer, lines: number | undefined): Buffer {
  if (lines === undefined) return bytes
  if (lines <= 0) return bytes.subarray(bytes.length)
  let from = bytes.at(-1) === lineFeed ? bytes.length - 1 : bytes.length
  for (let found = 0; found < lines; found++) {
    const at = from === 0 ? -1 : bytes.lastIndexOf(lineFeed, from - 1)
    if (at < 0) return bytes
    from = at
  }
  return bytes.subarray(from + 1)
}

/** What of a log is wanted, and until when. */
export interface FollowInit {
  path: string
  /** The end of what is there already comes first. */
  tail: LogTail
  /** Ends the following. */
  signal: AbortSignal
}

/** A reader that sees each write at once would wake for every byte that a serial port sends. */
const gatherMs = 20
/** Looks at least this often, should the system have no more watches to give. */
const pollMs = 1000
/** Read at once; more comes in the next piece. */
const pieceBytes = 256 * 1024

/**
 * A serial log as it grows: its end first, then what is added, over rotations and before there is a
 * file. Pieces are cut anywhere, also within a character. Ends quietly when the signal is aborted.
 * @throws guestFileRefused
 */
export async function* followLog(init: FollowInit, clock: Clock): AsyncGenerator<Buffer, void> {
  const { path, signal } = init
  const older = (await lookAt(olderLog(path))).identity
  const start = await readTail(path, init.tail)
  let place: Place = { offset: start.offset, older }
  if (start.bytes.length > 0) yield start.bytes
  while (!signal.aborted) {
    const changed = waitForChange(path, clock, signal)
    for (;;) {
      const piece = await readMore(path, place)
      place = piece.place
      if (piece.bytes.length === 0) break
      yield piece.bytes
      if (signal.aborted) break
    }
    await changed
    await sleep(clock, gatherMs, signal).catch(() => {})
  }
}

/**
 * How far a follower has read: an offset in the current file, and the older file beside it then.
 */
interface Place {
  offset: number
  older: string
}

/** What a path names now: enough to see that it became another file. */
async function lookAt(path: string): Promise<{ identity: string; size: number }> {
  const handle = await openIfThere(path)
  try {
    if (handle === undefined) return { identity: 'none', size: 0 }
    const { ino, ctimeMs, size } = await handle.stat()
    return { identity: `${ino}:${ctimeMs}`, size }
  } finally {
    await handle?.close()
  }
}

/**
 * What lies behind a place. After a rotation that is first the rest of what became the older file,
 * unless that was cut. Between the moment when there is a new older file and the one when the
 * current file is cut, the current one is at least as long as its copy: no rotation yet.
 */
async function readMore(path: string, place: Place): Promise<{ bytes: Buffer; place: Place }> {
  const handle = await openIfThere(path)
  if (handle === undefined) return { bytes: noBytes, place }
  try {
    const { size } = await handle.stat()
    const older = await lookAt(olderLog(path))
    let { offset } = place
    if (older.identity !== place.older && size < older.size) {
      const bytes = await readOlder(path, offset)
      if (bytes.length > 0) return { bytes, place: { ...place, offset: offset + bytes.length } }
      offset = 0
    } else if (size < offset) {
      offset = 0
    }
    const bytes = await readFrom(handle, offset, pieceBytes)
    return { bytes, place: { offset: offset + bytes.length, older: older.identity } }
  } finally {
    await handle.close()
  }
}

async function readOlder(path: string, offset: number): Promise<Buffer> {
  const handle = await openIfThere(olderLog(path))
  try {
    return handle === undefined ? noBytes : await readFrom(handle, offset, pieceBytes)
  } finally {
    await handle?.close()
  }
}

/** Resolves when the file may have changed, at the latest after `pollMs`; never rejects. */
async function waitForChange(path: string, clock: Clock, signal: AbortSignal): Promise<void> {
  const enough = new AbortController()
  const either = AbortSignal.any([enough.signal, signal])
  try {
    // The file and not its folder: a busy disk beside it would wake us for every write.
    const watcher = watch(path, { signal: either }, () => enough.abort())
    watcher.on('error', () => enough.abort())
  } catch {
    // No file yet, or no more watches: the poll finds it.
  }
  await sleep(clock, pollMs, either).catch(() => {})
  enough.abort()
}
