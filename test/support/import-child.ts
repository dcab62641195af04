import { systemClock } from '../../base/clock.ts'
import { runCommand } from '../../base/command.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { openImageStore } from '../../images/image-store.ts'
import { sandboxIdentity } from './sandbox-identity.ts'

// A process that does nothing but import images, to be killed at any moment. Arguments: the store's
// folder, then the files, which are imported and removed in turns, for ever.

const [folder = '', ...paths] = process.argv.slice(2)
const store = await openImageStore(
  { folder, limits: { ...defaultLimits, imageReserveBytes: 0 }, sandboxIdentity },
  { clock: systemClock, log: silentLog, random: systemRandom, run: runCommand },
)
process.stdout.write('open\n')
for (;;) {
  for (const path of paths) {
    const { digest } = await store.importImage({ path }, { format: 'auto' })
    process.stdout.write(`${digest}\n`)
  }
  for (const { digest } of store.list()) await store.remove(digest)
}
