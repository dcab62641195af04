import { defaultLimits } from '../../base/limits.ts'
import { fitLayers } from '../../images/fit-layers.ts'
import { openPartialDisk } from '../../images/partial/open-partial-disk.ts'
import { randomImage } from './random-layers.ts'

// A process that fills a partial image, to be killed at any moment. Argument: the image's folder.
// It says a line for each flush.

const [folder = ''] = process.argv.slice(2)
const image = randomImage({ seed: 21, layerCount: 3, diskBlocks: 4000 })
const { config } = image
const layers = fitLayers(config, image.encoded, defaultLimits)
const disk = await openPartialDisk({ folder, config, layers })
let waiting = 0
for (const name of disk.allMissing()) {
  await disk.put(name, image.chunks[name.layer]?.[name.chunk] ?? Buffer.alloc(0))
  waiting++
  if (waiting < 20) continue
  waiting = 0
  const stored = await disk.flush()
  process.stdout.write(`${stored.length}\n`)
}
await disk.flush()
