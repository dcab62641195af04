import { Worker } from 'node:worker_threads'
import { assert, failure } from '../../base/errors.ts'
import type { Pack } from '../format/locations.ts'
import type { FromPacker, PackTask } from './pack-messages.ts'

/** A pack that lies in a file, and the lengths of its frames: those of the first chunks asked for. */
export interface PackedFile {
  path: string
  pack: Pack
  lengths: number[]
}

/** Makes packs in a thread of its own, one at a time. */
export interface Packer {
  /** @throws chunkInvalid (what is here has rotted), the system's error with its code */
  pack(task: PackTask): Promise<PackedFile>
  /** Resolves when the thread is gone. */
  close(): Promise<void>
}

/** Starts the thread. */
export function startPacker(): Packer {
  // No arguments of ours: under a test runner they would load its hooks into the thread.
  const worker = new Worker(new URL('./pack-worker.ts', import.meta.url), { execArgv: [] })
  let waiting: { task: PackTask; settled: PromiseWithResolvers<PackedFile> } | undefined
  let isOver = false
  const fail = (error: unknown) => {
    isOver = true
    waiting?.settled.reject(error)
    waiting = undefined
  }
  worker.on('message', (message: FromPacker) => {
    const asked = waiting
    waiting = undefined
    if (message.type === 'failed') return asked?.settled.reject(errorOf(message))
    const { digest, sizeBytes, lengths } = message
    asked?.settled.resolve({ path: asked.task.path, pack: { digest, sizeBytes }, lengths })
  })
  worker.on('error', fail)
  worker.on('exit', () => fail(failure('internal', { detail: 'the packing thread ended early' })))
  return {
    async pack(task) {
      assert(waiting === undefined && !isOver, 'the packing thread is free')
      const settled = Promise.withResolvers<PackedFile>()
      waiting = { task, settled }
      worker.postMessage(task)
      return await settled.promise
    },
    async close() {
      await worker.terminate()
    },
  }
}

function errorOf({ code, message }: { code: string; message: string }): Error {
  if (code === 'chunkInvalid') return failure('chunkInvalid', { detail: message })
  return Object.assign(new Error(message), code === '' ? {} : { code })
}
