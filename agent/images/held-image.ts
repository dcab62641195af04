import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { isErrno } from '../../base/files.ts'
import { decodeConfig } from '../../images/decode-config.ts'
import { imageFiles, locationsFile } from '../../images/image-files.ts'
import type { ImageConfig } from '../../images/image-record.ts'
import type { ImageStore } from '../../images/image-store.ts'

/** An image that lies here whole, as its folder has it. */
export interface HeldImage {
  path: string
  config: ImageConfig
}

/** @throws notFound */
export async function readHeldImage(
  images: Pick<ImageStore, 'diskPath'>,
  digest: string,
): Promise<HeldImage> {
  const path = dirname(images.diskPath(digest))
  return { path, config: decodeConfig(await readFile(join(path, imageFiles.config))) }
}

/** Where the registry that it came from has the chunks of each layer, as far as it said. */
export async function readLocations({
  path,
  config,
}: HeldImage): Promise<(Uint8Array | undefined)[]> {
  return await Promise.all(
    config.layers.map((_, at) =>
      readFile(join(path, locationsFile(at))).catch(error => {
        if (isErrno(error, 'ENOENT')) return undefined
        throw error
      }),
    ),
  )
}
