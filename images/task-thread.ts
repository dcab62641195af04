import { Worker } from 'node:worker_threads'
import { errorTable } from '../base/error-table.ts'
import { failure, MacfleetError } from '../base/errors.ts'
import type { FromTask, ToTask } from './task-messages.ts'

/** How a task in a thread of its own is begun. */
export interface TaskThreadInit<Question, Answer> {
  /** The file of the thread; it calls `doTask` (task-worker.ts). */
  file: URL
  /** Plain data. */
  task: unknown
  /** What it throws ends the task. */
  answer(question: Question): Promise<Answer>
  onProgress?(doneBytes: number): void
  signal?: AbortSignal
}

/**
 * Does a task in a thread of its own, which reads, hashes and writes without a pause while the
 * daemon's event loop goes on.
 * @throws what the task throws, what `answer` throws, the signal's reason
 */
export async function runTask<Question, Answer, Result>(
  init: TaskThreadInit<Question, Answer>,
): Promise<Result> {
  const { signal } = init
  signal?.throwIfAborted()
  // No arguments of ours: under a test runner they would load its hooks into the thread.
  const worker = new Worker(init.file, { workerData: init.task, execArgv: [] })
  const { promise, resolve, reject } = Promise.withResolvers<Result>()
  const onAbort = () => reject(signal?.reason)
  signal?.addEventListener('abort', onAbort, { once: true })
  worker.on('message', (message: FromTask) => {
    if (message.type === 'progress') init.onProgress?.(message.doneBytes)
    else if (message.type === 'done') resolve(message.result as Result)
    else if (message.type === 'failed') reject(errorOf(message))
    else {
      init
        .answer(message.question as Question)
        .then(answer => worker.postMessage({ answer } satisfies ToTask), reject)
    }
  })
  worker.on('error', reject)
  worker.on('exit', code => reject(failure('internal', { detail: `a task ended early (${code})` })))
  try {
    return await promise
  } finally {
    signal?.removeEventListener('abort', onAbort)
    // Only then may its files be taken away.
    await worker.terminate()
  }
}

function errorOf({ code, values, message }: FromTask & { type: 'failed' }): Error {
  if (isErrorCode(code)) return new MacfleetError(code, values)
  return Object.assign(new Error(message), code === '' ? {} : { code })
}

function isErrorCode(code: string): code is keyof typeof errorTable {
  return Object.hasOwn(errorTable, code)
}
