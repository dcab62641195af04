import type { FileHandle } from 'node:fs/promises'
import { Worker } from 'node:worker_threads'
import { failure, MacfleetError } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { readHead } from '../byte-source.ts'
import { inspectedBytes, inspectHeader, refusalFailure } from '../inspect-header.ts'
import { readQcow2Header } from '../qcow2-header.ts'
import { refuse } from '../refusal.ts'
import type { CommitTask, FromCommitter, ThreadError, ToCommitter } from './commit-messages.ts'
import { layoutOf, type Qcow2Layout } from './qcow2-disk.ts'

/** Of what a layer is made. */
export interface CommitLayerInit {
  /** A qcow2 file without backing, of what was written; nothing in it is trusted. */
  snapshot: FileHandle
  parent: {
    /** The raw disk. */
    disk: FileHandle
    /** The indexes of its layers, encoded, base first. */
    layers: Uint8Array[]
    virtualSizeBytes: number
  }
  limits: Limits
  onProgress(doneBytes: number, totalBytes: number): void
  signal: AbortSignal
}

/** A layer that was made, and a thread that still reads its bytes. */
export interface CommitLayer {
  /** As its digest names it (layer-index.ts). */
  encoded: Buffer
  /**
   * Plain bytes of a chunk, by number, read anew: to be compared with its digest.
   * @throws the system's error, the signal's reason
   */
  readChunk(chunk: number): Promise<Buffer>
  /** To be called when no chunk is wanted any more, and before the files are closed. */
  close(): Promise<void>
}

/**
 * Makes a layer of what a disk has more than its parent, in a thread of its own.
 * @throws imageRefused, the system's error, the signal's reason
 */
export async function openCommitLayer(init: CommitLayerInit): Promise<CommitLayer> {
  init.signal.throwIfAborted()
  const { snapshot, parent, limits } = init
  const { size } = await snapshot.stat()
  const layout = judge(await readHead(snapshot, inspectedBytes), size, limits)
  if (layout.virtualSizeBytes < parent.virtualSizeBytes) {
    throw refusalFailure(refuse('damaged', 'it is smaller than the image below it'))
  }
  const { diskBytes, layerChunks } = limits
  const thread = startThread(init, {
    snapshotFile: snapshot.fd,
    snapshotBytes: size,
    layout,
    parentFile: parent.disk.fd,
    parentLayers: parent.layers,
    bounds: { diskBytes, layerChunks },
  })
  try {
    const encoded = await thread.layer
    return { encoded, readChunk: thread.readChunk, close: thread.close }
  } catch (error) {
    await thread.close()
    throw error
  }
}

function judge(head: Buffer, fileBytes: number, { diskBytes }: Limits): Qcow2Layout {
  const facts = inspectHeader(head, { format: 'qcow2', fileBytes, diskBytes })
  if (facts.format === 'refused') throw refusalFailure(facts)
  const header = readQcow2Header(head)
  if (header === undefined) throw refusalFailure(refuse('truncated', 'its header is cut short'))
  return layoutOf(header)
}

function startThread({ signal, onProgress }: CommitLayerInit, task: CommitTask) {
  // No arguments of ours: under a test runner they would load its hooks into the thread.
  const worker = new Worker(new URL('./commit-worker.ts', import.meta.url), {
    workerData: task,
    execArgv: [],
  })
  const layer = Promise.withResolvers<Buffer>()
  const chunks = new Map<number, PromiseWithResolvers<Buffer>>()
  let failed: { error: unknown } | undefined
  const fail = (error: unknown) => {
    failed ??= { error }
    layer.reject(error)
    for (const waiting of chunks.values()) waiting.reject(error)
    chunks.clear()
  }
  const onAbort = () => fail(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  // Nobody may be listening when it fails between two chunks.
  layer.promise.catch(() => {})
  worker.on('message', (message: FromCommitter) => {
    if (message.type === 'progress') onProgress(message.doneBytes, task.layout.virtualSizeBytes)
    else if (message.type === 'failed') fail(errorOf(message.error))
    else if (message.type === 'layer') layer.resolve(Buffer.from(message.encoded))
    else {
      chunks.get(message.chunk)?.resolve(Buffer.from(message.bytes))
      chunks.delete(message.chunk)
    }
  })
  worker.on('error', fail)
  worker.on('exit', code => fail(failure('internal', { detail: `a commit ended early (${code})` })))
  return {
    layer: layer.promise,
    async readChunk(chunk: number): Promise<Buffer> {
      if (failed) throw failed.error
      const waiting = chunks.get(chunk) ?? Promise.withResolvers<Buffer>()
      if (!chunks.has(chunk)) {
        chunks.set(chunk, waiting)
        worker.postMessage({ type: 'read', chunk } satisfies ToCommitter)
      }
      return await waiting.promise
    },
    async close(): Promise<void> {
      signal.removeEventListener('abort', onAbort)
      await worker.terminate()
    },
  }
}

function errorOf(error: ThreadError): Error {
  if ('known' in error) return new MacfleetError(error.known, { ...error.values })
  return Object.assign(new Error(error.message), error.code === '' ? {} : { code: error.code })
}
