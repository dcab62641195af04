import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { encodeConfig } from '../../images/encode-config.ts'
import { layerFile } from '../../images/image-files.ts'
import { writeSparseFile } from './images.ts'
import type { RandomImage } from './random-layers.ts'
import { temporaryFolder } from './temporary-folder.ts'

/** A partial image with nothing in it, in a folder that goes when the test ends. */
export function emptyPartialImage({ config, encoded }: RandomImage): string {
  const folder = join(temporaryFolder(), 'filling')
  mkdirSync(folder)
  writeSparseFile(join(folder, 'disk.raw'), config.virtualSizeBytes, [])
  writeFileSync(join(folder, 'config.json'), encodeConfig(config))
  for (const [at, layer] of encoded.entries()) writeFileSync(join(folder, layerFile(at)), layer)
  return folder
}
