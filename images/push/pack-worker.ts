import { closeSync, openSync, writeSync } from 'node:fs'
import { parentPort } from 'node:worker_threads'
import { assert, MacfleetError } from '../../base/errors.ts'
import { readAt } from '../file-bytes.ts'
import { checkChunk, createPackBuilder, encodeFrame } from '../format/packs.ts'
import { extentBytes } from '../layer-index.ts'
import type { FromPacker, PackedChunk, PackTask } from './pack-messages.ts'

// A thread of its own: it reads, verifies and compresses without a pause, a pack at a time.

assert(parentPort, 'this file runs as a worker thread')
const port = parentPort

port.on('message', (task: PackTask) => port.postMessage(guarded(task)))

function guarded(task: PackTask): FromPacker {
  try {
    return makePack(task)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : ''
    const values = error instanceof MacfleetError ? String(error.values['detail'] ?? '') : undefined
    return { type: 'failed', code, message: values ?? String(error) }
  }
}

function makePack({ path, chunks, limitBytes }: PackTask): FromPacker {
  const pack = createPackBuilder(limitBytes)
  const lengths: number[] = []
  const sources = new Map<string, number>()
  const target = openSync(path, 'w', 0o600)
  try {
    for (const chunk of chunks) {
      const frame = encodeFrame(readChunk(chunk, sources))
      if (!pack.hasRoom(frame.length)) break
      pack.add(frame)
      lengths.push(frame.length)
      for (let at = 0; at < frame.length; ) at += writeSync(target, frame, at)
    }
  } finally {
    closeSync(target)
    for (const file of sources.values()) closeSync(file)
  }
  return { type: 'packed', digest: pack.digest(), sizeBytes: pack.sizeBytes, lengths }
}

/** The plain bytes of a chunk; what has rotted here goes nowhere. @throws chunkInvalid */
function readChunk({ digest, file, extents }: PackedChunk, sources: Map<string, number>): Buffer {
  const source = sources.get(file) ?? openSync(file, 'r')
  sources.set(file, source)
  const plain = Buffer.allocUnsafe(extentBytes(extents))
  let start = 0
  for (const { offsetBytes, lengthBytes } of extents) {
    readAt(source, plain, start, start + lengthBytes, offsetBytes)
    start += lengthBytes
  }
  checkChunk(plain, digest)
  return plain
}
