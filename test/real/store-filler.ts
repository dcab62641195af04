import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { systemClock } from '../../base/clock.ts'
import { isFailure } from '../../base/errors.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { put } from '../../cluster/store/compliance-tools.ts'
import { openLevelStore } from '../../cluster/store/level.ts'

/**
 * Writes until the small file system that is its argument is full, makes room and writes again;
 * prints one object that says what happened.
 */
const [folder = ''] = process.argv.slice(2)
const ballast = join(folder, 'ballast')
writeFileSync(ballast, Buffer.alloc(2 * 1024 * 1024))
const store = await openLevelStore(
  { folder: join(folder, 'store') },
  { clock: systemClock, random: systemRandom, log: silentLog, limits: defaultLimits },
)
/** What was acknowledged, by key. */
const acknowledged: Record<string, string> = {}

async function write(key: string): Promise<unknown> {
  const value = systemRandom.bytes(5_000).toString('base64')
  try {
    await put(store, key, value)
    acknowledged[key] = value
    return undefined
  } catch (error) {
    return error
  }
}

let refusal: unknown
for (let index = 0; refusal === undefined && index < 5_000; index++) {
  refusal = await write(`key/${index}`)
}
const again = await write('while-full')
const readable = (await store.list('key/')).entries.length
rmSync(ballast)
const afterwards = await write('after')
const entries = new Map((await store.list('')).entries.map(({ key, value }) => [key, value]))
const lost = Object.keys(acknowledged).filter(key => entries.get(key) !== acknowledged[key])
await store.close()
process.stdout.write(
  `${JSON.stringify({
    refused: isFailure(refusal, 'unavailable'),
    refusedAgain: isFailure(again, 'unavailable'),
    readable: readable > 50,
    wroteAfterwards: afterwards === undefined,
    lost,
  })}\n`,
)
