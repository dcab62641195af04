import { withTimeout } from '../../base/clock.ts'
import { createTurns } from '../../base/turns.ts'
import { etcdUnavailable } from '../etcd/rpc-failure.ts'
import {
  Compacted,
  compactedFailure,
  type EtcdChangesComponents,
  readChanges,
} from './etcd-changes.ts'
import type { History } from './history.ts'
import type { WatchBatch } from './store.ts'

const pageRevisions = 500
const pageMs = 5_000
/** How often a page is begun before the reader is told that etcd is not available. */
const tries = 3

/** Reads the past from etcd, one page at a time: each reads everything that was written then. */
export function createEtcdReplay(components: EtcdChangesComponents): Pick<History, 'read'> {
  const { clock, codec } = components
  const turns = createTurns()

  const page = async (after: number, last: number): Promise<WatchBatch[]> => {
    const batches: WatchBatch[] = []
    const ending = new AbortController()
    const changes = readChanges(after, components, { signal: ending.signal })
    const reading = (async () => {
      for await (const { batch } of changes) {
        batches.push(batch)
        if (batch.revision >= last || batches.length >= pageRevisions) return
      }
    })()
    // A page that comes slowly, or breaks, is good as far as it came.
    const tooLate = (): Error => etcdUnavailable('its history does not come')
    try {
      await withTimeout(clock, pageMs, reading, tooLate)
    } catch (error) {
      if (batches.length === 0) throw error
    } finally {
      ending.abort()
    }
    return batches
  }
  const read = async (after: number, last: number): Promise<WatchBatch[]> => {
    for (let attempt = 1; ; attempt++) {
      try {
        return await page(after, last)
      } catch (error) {
        if (error instanceof Compacted) throw compactedFailure(after, error.before, codec)
        if (attempt === tries) throw error
      }
    }
  }
  return { read: (after, last) => turns.take(() => read(after, last)) }
}
