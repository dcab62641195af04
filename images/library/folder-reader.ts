import { type ChildProcess, fork } from 'node:child_process'
import { backoffMs } from '../../base/backoff.ts'
import { type Clock, sleep, type Timer } from '../../base/clock.ts'
import { assert, failure, type MacfleetError } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type {
  FileFacts,
  FolderEntry,
  LibraryAnswer,
  LibraryRequest,
  LibraryTask,
} from './library-messages.ts'

/** What reading a library needs. */
export interface LibraryComponents {
  clock: Clock
  limits: Limits
}

/**
 * Reads below a folder that others fill and that may hang, as a mount does whose server is gone.
 * Paths are lists of names. Everything throws `notFound` for what is not there or no regular file
 * (no folder), `sourceFailed` when the file system does not answer, and the signal's reason.
 */
export interface FolderReader {
  /** At most `limit` entries, in no order, and whether that is all. */
  list(
    path: string[],
    limit: number,
    signal: AbortSignal,
  ): Promise<{ entries: FolderEntry[]; isWhole: boolean }>
  look(path: string[], signal: AbortSignal): Promise<FileFacts>
  /** Fewer bytes where the file ends. At most 8 MiB. */
  read(
    path: string[],
    offsetBytes: number,
    lengthBytes: number,
    signal: AbortSignal,
  ): Promise<Buffer>
  close(): void
}

type Question = LibraryRequest extends infer Request
  ? Request extends { id: number }
    ? Omit<Request, 'id'>
    : never
  : never

interface Waiting {
  resolve(answer: LibraryAnswer): void
  reject(error: unknown): void
}

const readBytes = 8 * 1024 * 1024
const triesMost = 3
/** The process is ended when it has had nothing to do for so long. */
const idleMs = 15_000

/** Reads a folder by a process of its own, which is there while there is something to read. */
export function createFolderReader(folder: string, components: LibraryComponents): FolderReader {
  const { clock, limits } = components
  const caller = createCaller(folder, components)
  const fail = (detail: string) => failure('sourceFailed', { source: `library ${folder}`, detail })
  const ask = async (question: Question, signal: AbortSignal): Promise<LibraryAnswer> => {
    for (let tries = 1; ; tries++) {
      const answer = await caller.call(question, signal)
      if (answer.type !== 'failed') return answer
      const { code } = answer
      if (absent.includes(code)) {
        throw failure('notFound', { resource: 'library', name: question.path.join('/') })
      }
      if (!passing.includes(code) || tries === triesMost) throw fail(`it can not be read (${code})`)
      await sleep(clock, backoffMs({ firstMs: 200, mostMs: 1000 }, tries), signal)
    }
  }
  return {
    async list(path, limit, signal) {
      const most = Math.min(limit, limits.libraryEntries)
      const answer = await ask({ type: 'list', path, limit: most }, signal)
      assert(answer.type === 'listed', 'a folder is listed')
      return answer
    },
    async look(path, signal) {
      const answer = await ask({ type: 'look', path }, signal)
      assert(answer.type === 'looked', 'a file is looked at')
      return answer.facts
    },
    async read(path, offsetBytes, lengthBytes, signal) {
      assert(lengthBytes <= readBytes, 'a read is bounded')
      const answer = await ask({ type: 'read', path, offsetBytes, lengthBytes }, signal)
      assert(answer.type === 'read', 'a file is read')
      const { buffer, byteOffset, byteLength } = answer.bytes
      return Buffer.from(buffer, byteOffset, byteLength)
    },
    close: caller.close,
  }
}

/** There is no such file, it is a link, or it leads through something that is no folder. */
const absent = ['ENOENT', 'ENOTDIR', 'ELOOP', 'EISDIR', 'NOT_REGULAR', 'ENXIO', 'ENAMETOOLONG']
/** A file server that was away for a moment. */
const passing = ['EIO', 'ESTALE', 'ETIMEDOUT', 'EINTR', 'EAGAIN', 'EREMOTEIO']

interface Caller {
  call(question: Question, signal: AbortSignal): Promise<LibraryAnswer>
  close(): void
}

function createCaller(folder: string, { clock, limits }: LibraryComponents): Caller {
  const fail = (detail: string) => failure('sourceFailed', { source: `library ${folder}`, detail })
  const waiting = new Map<number, Waiting>()
  let nextId = 1
  let child: ChildProcess | undefined
  let ending: ChildProcess | undefined
  let idle: Timer | undefined
  let silence: Timer | undefined
  const end = (reason: MacfleetError) => {
    ending = child ?? ending
    child?.kill('SIGKILL')
    child = undefined
    for (const { reject } of waiting.values()) reject(reason)
    waiting.clear()
  }
  const start = (): ChildProcess => {
    // One that hangs ends when the file system lets it: until then there is no use in another.
    if (ending !== undefined) throw fail('its file system hangs')
    const started = startProcess(folder)
    started.on('message', (answer: LibraryAnswer) => {
      waiting.get(answer.id)?.resolve(answer)
      waiting.delete(answer.id)
      watch()
    })
    started.on('error', () => {})
    started.on('exit', () => {
      if (child === started) end(fail('the process that reads it ended'))
      if (ending === started) ending = undefined
    })
    return started
  }
  /** Somebody waits: then an answer, to whomever, has to come within a time. */
  const watch = () => {
    silence?.cancel()
    if (waiting.size === 0) return
    silence = clock.setTimer(limits.libraryCallMs, () =>
      end(fail(`its file system does not answer within ${limits.libraryCallMs} ms`)),
    )
  }
  const rest = () => {
    if (waiting.size > 0) return
    silence?.cancel()
    idle?.cancel()
    if (child === undefined) return
    idle = clock.setTimer(idleMs, () => {
      child?.disconnect()
      child = undefined
    })
  }
  return {
    async call(question, signal) {
      signal.throwIfAborted()
      child ??= start()
      idle?.cancel()
      const id = nextId++
      const { promise, resolve, reject } = Promise.withResolvers<LibraryAnswer>()
      const onAbort = () => reject(signal.reason)
      signal.addEventListener('abort', onAbort, { once: true })
      waiting.set(id, { resolve, reject })
      if (waiting.size === 1) watch()
      child.send({ id, ...question }, error => error && reject(fail('it can not be asked')))
      try {
        return await promise
      } finally {
        signal.removeEventListener('abort', onAbort)
        waiting.delete(id)
        rest()
      }
    },
    close() {
      idle?.cancel()
      silence?.cancel()
      end(fail('it is closed'))
    },
  }
}

function startProcess(folder: string): ChildProcess {
  const task: LibraryTask = { folder }
  const file = new URL('./library-process.ts', import.meta.url)
  const child = fork(file, [JSON.stringify(task)], {
    // No arguments of ours: under a test runner they would load its hooks. No secrets either.
    ...{ execArgv: [], env: {}, serialization: 'advanced' as const },
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  })
  child.unref()
  child.channel?.unref()
  return child
}
