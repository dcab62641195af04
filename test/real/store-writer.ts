import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { openLevelStore } from '../../cluster/store/level.ts'

/**
 * Writes into the store of the folder that is its argument until it is killed: four writers, each
 * transaction one value under two keys, and a line `REVISION VALUE` as soon as it is acknowledged.
 */
const folder = process.argv[2]
if (folder === undefined) throw new Error('usage: store-writer.ts FOLDER')
const store = await openLevelStore(
  { folder },
  { clock: systemClock, random: systemRandom, log: silentLog, limits: defaultLimits },
)

async function write(writer: number): Promise<void> {
  for (let round = 0; ; round++) {
    const value = `${process.pid}/${writer}/${round}`
    const operations = ['left', 'right'].map(side => ({ put: `${side}/${writer}`, value }))
    const { revision } = await store.transaction({ compare: [], operations })
    // Standard output is a pipe: on Linux the line is in it when this returns.
    process.stdout.write(`${revision} ${value}\n`)
  }
}
await Promise.all([0, 1, 2, 3].map(write))
