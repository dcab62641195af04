import { readSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { assert, MacfleetError, messageOf } from '../../base/errors.ts'
import { composeLayers, visibleExtents } from '../composition.ts'
import {
  decodeLayerIndex,
  type Extent,
  encodeLayerIndex,
  extentBytes,
  type LayerIndex,
} from '../layer-index.ts'
import type { CommitTask, FromCommitter, ThreadError, ToCommitter } from './commit-messages.ts'
import { makeLayer } from './layer-maker.ts'
import { openQcow2Disk } from './qcow2-disk.ts'

// A thread of its own: it reads, compares and hashes without a pause.

const progressBytes = 16 * 1024 * 1024

assert(parentPort, 'this file runs as a worker thread')
const port = parentPort
const task: CommitTask = workerData

function send(message: FromCommitter, transfer: ArrayBuffer[] = []): void {
  port.postMessage(message, transfer)
}

/** What of the parent is not zero, in order of the disk. */
function parentExtents(): Extent[] {
  const layers = task.parentLayers.map(encoded => decodeLayerIndex(encoded, task.bounds))
  return composeLayers(layers)
    .flatMap(view => view.index.chunks.flatMap((_, chunk) => [...visibleExtents(view, chunk)]))
    .sort((one, other) => one.offsetBytes - other.offsetBytes)
}

function readParent(bytes: Buffer, offsetBytes: number): void {
  for (let at = 0; at < bytes.length; ) {
    const read = readSync(task.parentFile, bytes, at, bytes.length - at, offsetBytes + at)
    if (read === 0) {
      bytes.fill(0, at)
      return
    }
    at += read
  }
}

function makeIndex(): LayerIndex {
  let announcedBytes = 0
  return makeLayer(disk, { extents: parentExtents(), read: readParent }, doneBytes => {
    if (doneBytes - announcedBytes < progressBytes) return
    announcedBytes = doneBytes
    send({ type: 'progress', doneBytes })
  })
}

function readChunk(index: LayerIndex, chunk: number): void {
  const extents = index.chunks[chunk]?.extents ?? []
  const memory = new ArrayBuffer(extentBytes(extents))
  let at = 0
  for (const { offsetBytes, lengthBytes } of extents) {
    disk.read(Buffer.from(memory, at, lengthBytes), offsetBytes)
    at += lengthBytes
  }
  send({ type: 'chunk', chunk, bytes: memory }, [memory])
}

function guard(work: () => void): void {
  try {
    work()
  } catch (error) {
    send({ type: 'failed', error: describe(error) })
  }
}

function describe(error: unknown): ThreadError {
  if (error instanceof MacfleetError) return { known: error.code, values: error.values }
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return { message: messageOf(error), code }
}

const disk = openQcow2Disk(task.snapshotFile, task.snapshotBytes, task.layout)
guard(() => {
  const index = makeIndex()
  const encoded = new Uint8Array(encodeLayerIndex(index)).buffer
  port.on('message', ({ chunk }: ToCommitter) => guard(() => readChunk(index, chunk)))
  send({ type: 'layer', encoded }, [encoded])
})
