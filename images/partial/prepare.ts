import type { Extent } from '../layer-index.ts'
import { runTask } from '../task-thread.ts'
import type {
  LocalPlace,
  PrepareAnswer,
  Prepared,
  PrepareQuestion,
  PrepareTask,
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
  return await runTask<PrepareQuestion, PrepareAnswer, Prepared>({
    file: new URL('./prepare-worker.ts', import.meta.url),
    task,
    async answer(question) {
      if (question.about === 'places') {
        return { places: await components.find(question.digests) }
      }
      if (question.about === 'holes') return { isDone: await components.punch(question.extents) }
      await components.demand(question.neededBytes)
      return { isDone: true }
    },
    signal,
  })
}
