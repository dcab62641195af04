import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { createImagePusher } from '../../images/push/image-pusher.ts'
import { createRegistryClient } from '../../images/registry/client.ts'
import { readImageConfig } from './layered-image.ts'

// Pushes an image in small packs, to be killed in the middle: HOST, the image's folder, the
// pusher's folder, the repository.
const [host = '', path = '', folder = '', repository = ''] = process.argv.slice(2)
const limits = { ...defaultLimits, pushPackBytes: 2 * 1024 * 1024 }
const components = { clock: systemClock, limits, log: silentLog, random: systemRandom }
const registry = createRegistryClient({ host, plainHttp: true }, components)
const pusher = createImagePusher(folder, { ...components, findChunk: async () => undefined })
const image = { path, config: readImageConfig(path) }
const { signal } = new AbortController()
await pusher.push({ image, repository, tag: 'v1' }, registry, [], { signal })
