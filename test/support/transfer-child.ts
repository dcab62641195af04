import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createTransfers } from '../../images/transfer/create-transfers.ts'
import { libraryOf } from './folder-sources.ts'

/**
 * Fills a partial image until it is whole or killed: `transfer-child.ts DIGEST FOLDER SOURCE`. It
 * says the bytes that are here, a line each time they grow.
 */
const [digest = '', folder = '', source = ''] = process.argv.slice(2)
const transfers = createTransfers(
  {
    host: 'mac-1',
    limits: defaultLimits,
    sourcesModule: new URL('./folder-sources.ts', import.meta.url),
  },
  { clock: systemClock, log: silentLog },
)
const filling = transfers.fill({ digest, folder, want: 'all', sources: [libraryOf(source)] })
filling.onProgress(({ doneBytes }) => console.log(doneBytes))
await filling.done
await transfers.close()
