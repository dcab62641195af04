import { fsyncSync, ftruncateSync, readSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { assert } from '../base/errors.ts'
import { writeAt } from './file-bytes.ts'
import { createLayerBuilder } from './layer-builder.ts'
import { blockBytes, chunkBytes, encodeLayerIndex } from './layer-index.ts'
import { type FromScanner, type ScanTask, shortened, type ToScanner } from './scan-messages.ts'

// A thread of its own: it reads, hashes and writes without a pause, and the daemon's event loop,
// which other guests depend on, goes on meanwhile.

const progressBytes = 16 * 1024 * 1024

assert(parentPort, 'this file runs as a worker thread')
const port = parentPort
const task: ScanTask = workerData
const builder = createLayerBuilder()
let doneBytes = 0
let announcedBytes = 0

function send(message: FromScanner, transfer: ArrayBuffer[] = []): void {
  port.postMessage(message, transfer)
}

/** Takes in one window that was read: its extents go to the disk file if that is another file. */
function takeWindow(offsetBytes: number, window: Buffer, write: boolean): void {
  const extents = builder.addWindow(offsetBytes, window)
  doneBytes += window.length
  if (write) {
    for (const extent of extents) {
      const start = extent.offsetBytes - offsetBytes
      writeAt(task.diskFile, window, start, start + extent.lengthBytes, extent.offsetBytes)
    }
  }
  if (doneBytes - announcedBytes < progressBytes) return
  announcedBytes = doneBytes
  send({ type: 'progress', doneBytes })
}

/**
 * Fills `window` from the source; what lies between the end of the disk and a whole block is zero.
 */
function readWindow(file: number, window: Buffer, offsetBytes: number, sizeBytes: number): Buffer {
  const wanted = Math.min(chunkBytes, sizeBytes - offsetBytes)
  let length = 0
  while (length < wanted) {
    const read = readSync(file, window, length, wanted - length, offsetBytes + length)
    if (read === 0) throw Object.assign(new Error('the file became shorter'), { code: shortened })
    length += read
  }
  const padded = wholeBlocks(wanted)
  window.fill(0, wanted, padded)
  return window.subarray(0, padded)
}

function scanFile(file: number, write: boolean): void {
  const buffer = Buffer.allocUnsafe(chunkBytes)
  let nextOffset = 0
  for (const { offsetBytes, lengthBytes } of task.ranges) {
    const first = Math.floor(offsetBytes / chunkBytes) * chunkBytes
    const end = Math.min(offsetBytes + lengthBytes, task.sizeBytes)
    for (let at = Math.max(first, nextOffset); at < end; at += chunkBytes) {
      takeWindow(at, readWindow(file, buffer, at, task.sizeBytes), write)
      nextOffset = at + chunkBytes
    }
  }
  finish(task.sizeBytes)
}

/** Gives the disk file its size, makes it durable, and hands the index back. */
function finish(sizeBytes: number): void {
  const virtualSizeBytes = wholeBlocks(sizeBytes)
  ftruncateSync(task.diskFile, virtualSizeBytes)
  fsyncSync(task.diskFile)
  const encoded = encodeLayerIndex(builder.finish(virtualSizeBytes))
  // A copy of its own, because a pooled buffer can't be handed to another thread.
  const index = new Uint8Array(encoded).buffer
  send({ type: 'done', index, doneBytes }, [index])
}

function wholeBlocks(bytes: number): number {
  return Math.ceil(bytes / blockBytes) * blockBytes
}

function guard(work: () => void): void {
  try {
    work()
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : ''
    send({ type: 'failed', code, message: error instanceof Error ? error.message : String(error) })
  }
}

if (task.sourceFile === undefined) {
  port.on('message', (message: ToScanner) =>
    guard(() => {
      if (message.type === 'end') return finish(message.sizeBytes)
      const bytes = Buffer.from(message.window)
      takeWindow(message.offsetBytes, bytes.subarray(0, message.lengthBytes), true)
      send({ type: 'taken', window: message.window }, [message.window])
    }),
  )
} else {
  const file = task.sourceFile
  guard(() => scanFile(file, file !== task.diskFile))
}
