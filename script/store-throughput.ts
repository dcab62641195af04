import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { systemClock } from '../base/clock.ts'
import { defaultLimits } from '../base/limits.ts'
import { createLog } from '../base/log.ts'
import { systemRandom } from '../base/random.ts'
import { openLevelStore } from '../cluster/store/level.ts'
import { createMemoryStore } from '../cluster/store/memory.ts'
import type { Store } from '../cluster/store/store.ts'

// Puts per second of both stores, with 1 and with 64 writers; `node script/store-throughput.ts [FOLDER]`.
// The level store is bound by the disk's sync, so say on which disk a figure was taken.

const base = mkdtempSync(join(process.argv[2] ?? '.', 'store-throughput-'))
const log = createLog({ level: 'warn' })
const components = { clock: systemClock, random: systemRandom, log, limits: defaultLimits }
const value = { text: 'x'.repeat(1_000) }

async function measure(name: string, store: Store, writers: number, puts: number): Promise<void> {
  const startMs = systemClock.monotonicMs()
  let next = 0
  const write = async () => {
    for (let index = next++; index < puts; index = next++) {
      await store.transaction({ compare: [], operations: [{ put: `key/${index % 500}`, value }] })
    }
  }
  await Promise.all(Array.from({ length: writers }, write))
  const seconds = (systemClock.monotonicMs() - startMs) / 1000
  process.stdout.write(`${name}, ${writers} writers: ${Math.round(puts / seconds)} puts/s\n`)
}

try {
  const memory = createMemoryStore(components)
  await measure('memory', memory, 1, 20_000)
  await memory.close()
  const level = await openLevelStore({ folder: base }, components)
  await measure('level', level, 1, 500)
  await measure('level', level, 64, 20_000)
  await level.close()
  const startMs = systemClock.monotonicMs()
  const again = await openLevelStore({ folder: base }, components)
  const tookMs = Math.round(systemClock.monotonicMs() - startMs)
  process.stdout.write(`level, opened after ${await again.revision()} revisions: ${tookMs} ms\n`)
  await again.close()
} finally {
  rmSync(base, { recursive: true, force: true })
}
