import { Worker } from 'node:worker_threads'
import { errorTable } from '../../base/error-table.ts'
import { failure, MacfleetError } from '../../base/errors.ts'
import type { Extent } from '../layer-index.ts'
import type {
  FromPreparer,
  LocalPlace,
  Prepared,
  PrepareTask,
  ToPreparer,
} from './prepare-messages.ts'

/** What a preparation asks for while it goes on. */
export interface PrepareComponents {
  /** Where chunks are, by digest; undefined for what is not here. */
  find(digests: readonly string[]): Promise<(LocalPlace | undefined)[]>
  /** @throws diskFull when so many more bytes may not be written */
  demand(neededBytes: number): Promise<void>
  /** Makes these parts of the disk holes. @returns whether it could */
  punch(extents: readonly Extent[]): Promise<boolean>
}

/**
 * Makes, or looks at, the disk of a partial image in a thread of its own.
 * @throws imageConfigInvalid, layerIndexInvalid, diskFull, the system's error, the signal's reason
 */
export async function runPreparation(
  task: PrepareTask,
  components: PrepareComponents,
  signal?: AbortSignal,
): Promise<Prepared> {
  signal?.throwIfAborted()
  // No arguments of ours: under a test runner they would load its hooks into the thread.
  const worker = new Worker(new URL('./prepare-worker.ts', import.meta.url), {
    workerData: task,
    execArgv: [],
  })
  const { promise, resolve, reject } = Promise.withResolvers<Prepared>()
  const onAbort = () => reject(signal?.reason)
  signal?.addEventListener('abort', onAbort, { once: true })
  worker.on('message', (message: FromPreparer) => {
    if (message.type === 'done') return resolve(message)
    if (message.type === 'failed') return reject(errorOf(message))
    answer(message, components).then(reply => worker.postMessage(reply), reject)
  })
  worker.on('error', reject)
  worker.on('exit', code =>
    reject(failure('internal', { detail: `a thread that makes a disk ended early (${code})` })),
  )
  try {
    return await promise
  } finally {
    signal?.removeEventListener('abort', onAbort)
    await worker.terminate()
  }
}

async function answer(
  message: Exclude<FromPreparer, { type: 'done' | 'failed' }>,
  components: PrepareComponents,
): Promise<ToPreparer> {
  if (message.type === 'find') {
    return { type: 'places', places: await components.find(message.digests) }
  }
  if (message.type === 'punch') {
    return { type: 'punched', isDone: await components.punch(message.extents) }
  }
  await components.demand(message.neededBytes)
  return { type: 'granted' }
}

function errorOf({ code, values, message }: FromPreparer & { type: 'failed' }): Error {
  if (isErrorCode(code)) return new MacfleetError(code, values)
  return Object.assign(new Error(message), code === '' ? {} : { code })
}

function isErrorCode(code: string): code is keyof typeof errorTable {
  return Object.hasOwn(errorTable, code)
}
