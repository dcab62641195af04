import { assert } from '../../base/errors.ts'
import type { LayerView } from '../composition.ts'
import { extentBytes } from '../layer-index.ts'
import type { ChunkName } from '../partial/partial-disk.ts'

/** All chunks of an image in one row, base layer first: bitmaps and arrays are by this number. */
export interface ChunkNumbers {
  readonly count: number
  /** By layer: the number of its first chunk. */
  readonly firsts: readonly number[]
  numberOf(name: ChunkName): number
  nameOf(number: number): ChunkName
  /** Plain bytes of a chunk. */
  bytesOf(number: number): number
}

/** Numbers the chunks of an image. */
export function numberChunks(layers: readonly Pick<LayerView, 'index'>[]): ChunkNumbers {
  const firsts: number[] = []
  let count = 0
  for (const { index } of layers) {
    firsts.push(count)
    count += index.chunks.length
  }
  const bytes = new Uint32Array(count)
  let at = 0
  for (const { index } of layers) {
    for (const { extents } of index.chunks) bytes[at++] = extentBytes(extents)
  }
  return {
    count,
    firsts,
    numberOf: ({ layer, chunk }) => (firsts[layer] ?? 0) + chunk,
    nameOf(number) {
      assert(number >= 0 && number < count, `${number} is the number of a chunk`)
      let layer = firsts.length - 1
      // A layer without chunks begins where the next one does: the last that begins here has it.
      while ((firsts[layer] ?? 0) > number) layer--
      return { layer, chunk: number - (firsts[layer] ?? 0) }
    },
    bytesOf: number => bytes[number] ?? 0,
  }
}
