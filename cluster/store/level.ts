import { failure } from '../../base/errors.ts'
import { messageOf } from '../../base/log.ts'
import { Damage } from './level-format.ts'
import { createJournal, type Journal } from './level-journal.ts'
import { openFolder } from './level-open.ts'
import { type Change, createDraft, createState, type Draft } from './state.ts'
import type { Store } from './store.ts'
import { createStoreCore, type Decide, type StoreComponents, type StoreCore } from './store-core.ts'

/** At most so many writes, and about so many bytes, share one sync of the disk. */
const groupWrites = 256
const groupBytes = 4 * 1024 * 1024

/** Where a store lies. */
export interface LevelStoreInit {
  /** A folder of its own; made if it is missing. */
  folder: string
}

/** A write that waits; `decide` returns its change, if any, and remembers what to answer. */
interface Waiting {
  bytes: number
  decide(draft: Draft): Change | undefined
  /** Answers the caller, once what was decided is durable. */
  settle(): void
  reject(error: Error): void
}

/**
 * Opens the store of a single host: the state in memory, every acknowledged write on the disk
 * (LevelDB, synced). Writes that come while the disk is busy share the next sync, each with its own
 * revision. Reads and watches never show what is not durable. After a restart every lease has its
 * full time again, because nobody knows how long the process was down.
 *
 * When a write fails (a full disk), reads go on, and the next write opens LevelDB anew first.
 * @throws storeLocked when another process, or this one, has it open; storeMoved when etcd has it
 *   all; storeCorrupt when anything
 * that
 *   was written is missing or changed (the folder then stays untouched: see repairLevelStore);
 *   unavailable when the disk can't be read or written
 */
export async function openLevelStore(
  init: LevelStoreInit,
  components: StoreComponents,
): Promise<Store> {
  const { folder } = init
  const { limits, random } = components
  const opened = await openFolder(folder, random).catch(error => {
    throw outward(error, folder)
  })
  const { meta, entries, leases } = opened.content
  const state = createState({ revision: meta.revision, entries, leases })
  const journal = createJournal(opened, limits)
  const queue: Waiting[] = []
  let pumping: Promise<void> | undefined
  /** What a failed write was to do: it may have been done. */
  let doubtful: readonly Change[] | undefined

  const settleDoubt = async (): Promise<void> => {
    if (doubtful === undefined) return
    if (await journal.recover()) applyAll(core, doubtful)
    doubtful = undefined
  }
  const writeGroup = async (group: readonly Waiting[], changes: Change[]): Promise<void> => {
    const draft = createDraft(state)
    for (const waiting of group) {
      const change = waiting.decide(draft)
      if (change === undefined) continue
      draft.record(change)
      changes.push(change)
    }
    if (changes.length > 0) await journal.write(changes)
  }
  const runGroup = async (group: readonly Waiting[]): Promise<void> => {
    const changes: Change[] = []
    try {
      await settleDoubt()
      await writeGroup(group, changes)
    } catch (error) {
      if (changes.length > 0) doubtful = changes
      components.log.error({ folder, error: messageOf(error) }, 'the store could not write')
      for (const waiting of group) waiting.reject(outward(error, folder))
      return
    }
    applyAll(core, changes)
    for (const waiting of group) waiting.settle()
  }
  const pump = async (): Promise<void> => {
    // Calls of the same turn share a group.
    await Promise.resolve()
    while (queue.length > 0) await runGroup(takeGroup(queue))
    pumping = undefined
  }

  const core = createStoreCore(
    {
      state,
      history: { read: (after, last) => readHistory(journal, folder, after, last) },
      commit: (decide, bytes) =>
        new Promise((resolve, reject) => {
          if (queue.length >= limits.storeWritesWaiting) {
            const what = 'writes that wait for the disk'
            throw failure('tooMany', { limit: limits.storeWritesWaiting, what })
          }
          queue.push(createWaiting(decide, bytes, resolve, reject))
          pumping ??= pump()
        }),
      async close() {
        await pumping
        await journal.close()
      },
    },
    components,
  )
  return core.store
}

function applyAll(core: StoreCore, changes: readonly Change[]): void {
  for (const change of changes) core.apply(change)
}

function takeGroup(queue: Waiting[]): Waiting[] {
  let bytes = 0
  let count = 0
  for (const waiting of queue) {
    bytes += waiting.bytes
    if (count > 0 && (count >= groupWrites || bytes > groupBytes)) break
    count++
  }
  return queue.splice(0, count)
}

function createWaiting<Result>(
  decide: Decide<Result>,
  bytes: number,
  resolve: (result: Result) => void,
  reject: (error: unknown) => void,
): Waiting {
  let settle = () => {}
  return {
    bytes,
    reject,
    settle: () => settle(),
    decide(draft) {
      try {
        const { result, change } = decide(draft)
        settle = () => resolve(result)
        return change
      } catch (error) {
        // Also a refusal may rest on a write of this group that is not durable yet: it waits too.
        settle = () => reject(error)
        return undefined
      }
    },
  }
}

async function readHistory(journal: Journal, folder: string, after: number, last: number) {
  try {
    return await journal.readHistory(after, last)
  } catch (error) {
    throw outward(error, folder)
  }
}

/** Names the folder in what goes to the outside. */
function outward(error: unknown, folder: string): Error {
  if (error instanceof Damage) {
    return failure('storeCorrupt', { folder, detail: error.message }, { cause: error })
  }
  return error instanceof Error ? error : new Error(String(error))
}
