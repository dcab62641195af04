import { Worker } from 'node:worker_threads'
import { assert, failure } from '../base/errors.ts'
import { blockBytes, chunkBytes } from './layer-index.ts'
import type { FromScanner, ScanTask, ToScanner } from './scan-messages.ts'

/** How a scan is watched and ended. */
export interface ScanOptions {
  /** Called about every 16 MiB. */
  onProgress?: (doneBytes: number) => void
  signal?: AbortSignal
}

/** The index that a scan made, encoded (layer-index.ts), and the bytes it read. */
export interface ScanResult {
  index: Buffer
  doneBytes: number
}

/** Windows on their way to the thread: enough that neither side waits for the other. */
const windowsInFlight = 4

/**
 * Reads a file in a thread of its own and makes the index of its layer; copies what is not zero to
 * the raw file unless it is that file.
 * @throws the system's error, with its code (ENOSPC), or the signal's reason
 */
export async function scanFile(task: ScanTask, options: ScanOptions): Promise<ScanResult> {
  assert(task.sourceFile !== undefined, 'a file is scanned')
  const thread = startThread(task, options)
  try {
    return await thread.result
  } finally {
    await thread.end()
  }
}

/**
 * Writes a stream of raw bytes into the raw file and makes the index of its layer, likewise.
 * @param beforeWindow may refuse to go on, by throwing; it is told how much has come before
 */
export async function scanStream(
  diskFile: number,
  stream: AsyncIterable<Uint8Array>,
  beforeWindow: (doneBytes: number) => Promise<void> | void,
  options: ScanOptions,
): Promise<ScanResult> {
  const task = { diskFile, sourceFile: undefined, sizeBytes: 0, ranges: [] }
  const thread = startThread(task, options)
  try {
    let offsetBytes = 0
    let filled = 0
    let window = Buffer.from(await thread.takeWindow())
    const hand = async () => {
      await beforeWindow(offsetBytes + filled)
      const lengthBytes = Math.ceil(filled / blockBytes) * blockBytes
      window.fill(0, filled, lengthBytes)
      thread.send({ type: 'window', offsetBytes, lengthBytes, window: memoryOf(window) })
      offsetBytes += filled
      filled = 0
    }
    for await (const part of stream) {
      for (let at = 0; at < part.length; ) {
        const taken = Math.min(part.length - at, chunkBytes - filled)
        window.set(part.subarray(at, at + taken), filled)
        at += taken
        filled += taken
        if (filled < chunkBytes) continue
        await hand()
        window = Buffer.from(await thread.takeWindow())
      }
      options.signal?.throwIfAborted()
    }
    if (filled > 0) await hand()
    thread.send({ type: 'end', sizeBytes: offsetBytes })
    const { index } = await thread.result
    return { index, doneBytes: offsetBytes }
  } finally {
    await thread.end()
  }
}

interface ScanThread {
  result: Promise<ScanResult>
  /** Memory for the next window; waits until the thread is done with one. */
  takeWindow(): Promise<ArrayBuffer>
  send(message: ToScanner): void
  /** Resolves when the thread is gone: only then may its files be closed. */
  end(): Promise<void>
}

function startThread(task: ScanTask, { onProgress, signal }: ScanOptions): ScanThread {
  signal?.throwIfAborted()
  // No arguments of ours: under a test runner they would load its hooks into the thread.
  const worker = new Worker(new URL('./scan-worker.ts', import.meta.url), {
    workerData: task,
    execArgv: [],
  })
  const free = Array.from({ length: windowsInFlight }, () => new ArrayBuffer(chunkBytes))
  let waiting: PromiseWithResolvers<ArrayBuffer> | undefined
  const { promise: result, resolve, reject } = Promise.withResolvers<ScanResult>()
  const onAbort = () => reject(signal?.reason)
  signal?.addEventListener('abort', onAbort, { once: true })
  // Whoever waits for a window hears of a failure too; nobody may be listening to the result yet.
  let failed: { error: unknown } | undefined
  result.catch(error => {
    failed = { error }
    waiting?.reject(error)
  })
  worker.on('message', (message: FromScanner) => {
    if (message.type === 'progress') return onProgress?.(message.doneBytes)
    if (message.type === 'failed') return reject(errorOf(message))
    if (message.type === 'done') {
      return resolve({ index: Buffer.from(message.index), doneBytes: message.doneBytes })
    }
    if (waiting) waiting.resolve(message.window)
    else free.push(message.window)
    waiting = undefined
  })
  worker.on('error', reject)
  worker.on('exit', code => reject(failure('internal', { detail: `a scan ended early (${code})` })))
  return {
    result,
    async takeWindow() {
      if (failed) throw failed.error
      const window = free.pop()
      if (window) return window
      waiting = Promise.withResolvers()
      return waiting.promise
    },
    send: message => worker.postMessage(message, message.type === 'window' ? [message.window] : []),
    async end() {
      signal?.removeEventListener('abort', onAbort)
      await worker.terminate()
    },
  }
}

function memoryOf(window: Buffer): ArrayBuffer {
  assert(window.buffer instanceof ArrayBuffer, 'a window has memory of its own')
  return window.buffer
}

function errorOf({ code, message }: { code: string; message: string }): Error {
  return Object.assign(new Error(message), code === '' ? {} : { code })
}
