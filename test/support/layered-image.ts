import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { defaultLimits } from '../../base/limits.ts'
import { decodeConfig } from '../../images/decode-config.ts'
import { describeLayer } from '../../images/describe-layer.ts'
import { encodeConfig } from '../../images/encode-config.ts'
import { digestBytes } from '../../images/format/packs.ts'
import { imageFiles, layerFile } from '../../images/image-files.ts'
import type { ImageFolder } from '../../images/image-folder.ts'
import type { ImageConfig } from '../../images/image-record.ts'
import {
  blockBytes,
  chunkBytes,
  type Extent,
  encodeLayerIndex,
  type LayerChunk,
} from '../../images/layer-index.ts'

/** What one layer says: bytes at places of the disk, whole blocks in order, and what became zero. */
export interface LayerContent {
  data: [offsetBytes: number, bytes: Buffer][]
  zeros?: Extent[]
}

/** Makes the folder of an image of these layers, base first, as the store has them. */
export function writeLayeredImage(
  path: string,
  virtualSizeBytes: number,
  layers: readonly LayerContent[],
): Pick<ImageFolder, 'path' | 'config'> {
  mkdirSync(path, { recursive: true })
  const disk = openSync(join(path, imageFiles.disk), 'w')
  ftruncateSync(disk, virtualSizeBytes)
  const described: ImageConfig['layers'] = []
  for (const [at, { data, zeros = [] }] of layers.entries()) {
    const chunks = gather(data)
    const encoded = encodeLayerIndex({ virtualSizeBytes, chunks, zeros })
    writeFileSync(join(path, layerFile(at)), encoded)
    described.push(describeLayer(encoded, defaultLimits).layer)
    for (const [offset, bytes] of data) writeSync(disk, bytes, 0, bytes.length, offset)
    for (const { offsetBytes, lengthBytes } of zeros) {
      writeSync(disk, Buffer.alloc(lengthBytes), 0, lengthBytes, offsetBytes)
    }
  }
  closeSync(disk)
  const config: ImageConfig = {
    ...{ version: 1, arch: 'x86_64', machine: 'linux', firmware: 'bios', virtualSizeBytes },
    layers: described,
  }
  writeFileSync(join(path, imageFiles.config), encodeConfig(config))
  return { path, config }
}

/** Chunks of up to 1 MiB, in the order of the disk. */
function gather(data: LayerContent['data']): LayerChunk[] {
  const chunks: LayerChunk[] = []
  let extents: Extent[] = []
  let parts: Buffer[] = []
  let roomBytes = chunkBytes
  const flush = (): void => {
    if (extents.length > 0) chunks.push({ digest: digestBytes(Buffer.concat(parts)), extents })
    extents = []
    parts = []
    roomBytes = chunkBytes
  }
  for (const [offsetBytes, bytes] of data) {
    for (let at = 0; at < bytes.length; ) {
      const lengthBytes = Math.min(bytes.length - at, roomBytes)
      if (lengthBytes % blockBytes !== 0) throw new Error('layers are made of whole blocks')
      extents.push({ offsetBytes: offsetBytes + at, lengthBytes })
      parts.push(bytes.subarray(at, at + lengthBytes))
      roomBytes -= lengthBytes
      at += lengthBytes
      if (roomBytes === 0) flush()
    }
  }
  flush()
  return chunks
}

/** The config of an image in its folder. */
export function readImageConfig(path: string): ImageConfig {
  return decodeConfig(readFileSync(join(path, imageFiles.config)))
}
