import { createSeededRandom, type Random, randomInteger } from '../../base/random.ts'
import { describeLayer } from '../../images/describe-layer.ts'
import type { ImageConfig } from '../../images/image-record.ts'
import {
  blockBytes,
  type Extent,
  encodeLayerIndex,
  extentBytes,
  type LayerIndex,
} from '../../images/layer-index.ts'
import { digestOfBytes } from './images.ts'

/** An image made of chance, and what is right about it, found without our own composition. */
export interface RandomImage {
  config: ImageConfig
  layers: LayerIndex[]
  encoded: Buffer[]
  /** Plain bytes by layer and chunk. */
  chunks: Buffer[][]
  /** What a guest sees. */
  disk: Buffer
}

/** What a random image is made of. */
export interface RandomImageInit {
  seed: number
  layerCount: number
  diskBlocks: number
  /** Layers that it begins with, those of another image. */
  base?: RandomImage
  /** Blocks of a chunk at most. */
  chunkBlocks?: number
}

/** The same image for the same init. */
export function randomImage(init: RandomImageInit): RandomImage {
  const random = createSeededRandom(init.seed)
  const image: RandomImage = {
    config: emptyConfig(init.diskBlocks),
    layers: [...(init.base?.layers ?? [])],
    encoded: [...(init.base?.encoded ?? [])],
    chunks: [...(init.base?.chunks ?? [])],
    disk: Buffer.concat([init.base?.disk ?? Buffer.alloc(0)], init.diskBlocks * blockBytes),
  }
  for (let at = image.layers.length; at < init.layerCount; at++) addLayer(image, random, init)
  image.config.layers = image.encoded.map(encoded => describeLayer(encoded, bounds).layer)
  return image
}

const bounds = { diskBytes: 2 ** 43, layerChunks: 2 ** 20 }

function emptyConfig(diskBlocks: number): ImageConfig {
  const virtualSizeBytes = diskBlocks * blockBytes
  return {
    ...{ version: 1, arch: 'x86_64', machine: 'linux', firmware: 'bios', virtualSizeBytes },
    layers: [],
  }
}

function addLayer(image: RandomImage, random: Random, init: RandomImageInit): void {
  const { diskBlocks, chunkBlocks = 8 } = init
  const isBase = image.layers.length === 0
  const layer: LayerIndex = { virtualSizeBytes: diskBlocks * blockBytes, chunks: [], zeros: [] }
  const bytes: Buffer[] = []
  let extents: Extent[] = []
  const close = () => {
    if (extents.length === 0) return
    const block = random.bytes(64)
    const plain = Buffer.alloc(extentBytes(extents), block)
    random.bytes(8).copy(plain)
    let from = 0
    for (const { offsetBytes, lengthBytes } of extents) {
      plain.copy(image.disk, offsetBytes, from, from + lengthBytes)
      from += lengthBytes
    }
    layer.chunks.push({ digest: digestOfBytes(plain), extents })
    bytes.push(plain)
    extents = []
  }
  let at = randomInteger(random, 6)
  while (at < diskBlocks) {
    const blocks = Math.min(1 + randomInteger(random, 4), diskBlocks - at, chunkBlocks)
    const extent = { offsetBytes: at * blockBytes, lengthBytes: blocks * blockBytes }
    if (!isBase && randomInteger(random, 4) === 0) {
      layer.zeros.push(extent)
      image.disk.fill(0, extent.offsetBytes, extent.offsetBytes + extent.lengthBytes)
    } else {
      if (extentBytes(extents) + extent.lengthBytes > chunkBlocks * blockBytes) close()
      extents.push(extent)
      if (randomInteger(random, 3) === 0) close()
    }
    at += blocks + 1 + randomInteger(random, isBase ? 3 : 12)
  }
  close()
  image.layers.push(layer)
  image.encoded.push(encodeLayerIndex(layer))
  image.chunks.push(bytes)
}
