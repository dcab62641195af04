import fc from 'fast-check'
import { expect, test } from 'vitest'
import { composeLayers, visibleExtents } from './composition.ts'
import {
  blockBytes,
  digestOf,
  type Extent,
  type LayerChunk,
  type LayerIndex,
} from './layer-index.ts'

const diskBlocks = 48

/** What a layer says of each block: nothing, that it is zero, or data, maybe in a new chunk. */
type Said = 'nothing' | 'zero' | 'data' | 'new chunk'
const layer = fc.array(fc.constantFrom<Said>('nothing', 'nothing', 'zero', 'data', 'new chunk'), {
  minLength: diskBlocks,
  maxLength: diskBlocks,
})

/** One block of the disk as a guest sees it: a layer's chunk and the place in it, or zero. */
type Seen = { layer: number; chunk: number; chunkOffsetBytes: number } | undefined

/** The index that a layer's words make, and where each of its blocks of data lies in a chunk. */
function build(said: readonly Said[]): { index: LayerIndex; places: Map<number, Seen> } {
  const chunks: LayerChunk[] = []
  const zeros: Extent[] = []
  const places = new Map<number, Seen>()
  let chunkOffsetBytes = 0
  for (const [block, word] of said.entries()) {
    if (word === 'nothing') continue
    if (word === 'zero') {
      append(zeros, block)
      continue
    }
    if (word === 'new chunk' || chunks.length === 0) {
      chunks.push({ digest: digestOf(Buffer.alloc(32, chunks.length)), extents: [] })
      chunkOffsetBytes = 0
    }
    places.set(block, { layer: 0, chunk: chunks.length - 1, chunkOffsetBytes })
    append(chunks.at(-1)?.extents ?? [], block)
    chunkOffsetBytes += blockBytes
  }
  return { index: { virtualSizeBytes: diskBlocks * blockBytes, chunks, zeros }, places }
}

function append(extents: Extent[], block: number): void {
  const last = extents.at(-1)
  const offsetBytes = block * blockBytes
  if (last !== undefined && last.offsetBytes + last.lengthBytes === offsetBytes) {
    last.lengthBytes += blockBytes
  } else {
    extents.push({ offsetBytes, lengthBytes: blockBytes })
  }
}

test('each block is seen from the uppermost layer that says something of it', () => {
  fc.assert(
    fc.property(fc.array(layer, { minLength: 1, maxLength: 4 }), words => {
      const built = words.map(build)
      const expected: Seen[] = Array.from({ length: diskBlocks }, () => undefined)
      for (const [at, said] of words.entries()) {
        for (const [block, word] of said.entries()) {
          if (word === 'nothing') continue
          const place = built[at]?.places.get(block)
          expected[block] = place && { ...place, layer: at }
        }
      }
      const found: Seen[] = Array.from({ length: diskBlocks }, () => undefined)
      for (const [at, view] of composeLayers(built.map(({ index }) => index)).entries()) {
        for (const chunk of view.index.chunks.keys()) {
          let endBytes = 0
          for (const extent of visibleExtents(view, chunk)) {
            expect(extent.offsetBytes).toBeGreaterThanOrEqual(endBytes)
            expect(extent.lengthBytes).toBeGreaterThan(0)
            endBytes = extent.offsetBytes + extent.lengthBytes
            for (let done = 0; done < extent.lengthBytes; done += blockBytes) {
              const block = (extent.offsetBytes + done) / blockBytes
              expect(found[block]).toBeUndefined()
              found[block] = { layer: at, chunk, chunkOffsetBytes: extent.chunkOffsetBytes + done }
            }
          }
        }
      }
      expect(found).toEqual(expected)
    }),
  )
})

test('a chunk is covered in part, wholly or not at all', () => {
  const block = (at: number, blocks = 1): Extent => ({
    offsetBytes: at * blockBytes,
    lengthBytes: blocks * blockBytes,
  })
  const digest = digestOf(Buffer.alloc(32))
  const virtualSizeBytes = 16 * blockBytes
  const base: LayerIndex = {
    virtualSizeBytes,
    chunks: [block(0, 4), block(4, 4), block(8, 4)].map(extent => ({ digest, extents: [extent] })),
    zeros: [],
  }
  const upper: LayerIndex = {
    virtualSizeBytes,
    chunks: [{ digest, extents: [block(1)] }],
    zeros: [block(8, 4)],
  }
  const [view, top] = composeLayers([base, upper])
  expect(view?.covered).toEqual(
    new Map([
      [
        0,
        [
          { ...block(0), chunkOffsetBytes: 0 },
          { ...block(2, 2), chunkOffsetBytes: 2 * blockBytes },
        ],
      ],
      [2, []],
    ]),
  )
  expect(top?.covered.size).toBe(0)
})
