import { createHash, randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { defaultLimits } from '../../base/limits.ts'
import { composeLayers, visibleExtents } from '../composition.ts'
import { createLayerBuilder } from '../layer-builder.ts'
import {
  blockBytes,
  chunkBytes,
  decodeLayerIndex,
  type Extent,
  encodeLayerIndex,
  type LayerIndex,
} from '../layer-index.ts'
import { type AllocatedRun, makeLayer, type ParentDisk } from './layer-maker.ts'

/** Disks of a few windows, the last cut short, so that every border is near. */
const parentBlocks = 2 * 256 + 40
const diskBlocks = 3 * 256 + 17

/** A block with one byte all through, so that equal blocks are common. */
function put(disk: Buffer, block: number, byte: number): void {
  disk.fill(byte, block * blockBytes, (block + 1) * blockBytes)
}

/** The index that an import makes of a disk. */
function imported(disk: Buffer): LayerIndex {
  const builder = createLayerBuilder()
  for (let at = 0; at < disk.length; at += chunkBytes) {
    builder.addWindow(at, disk.subarray(at, Math.min(at + chunkBytes, disk.length)))
  }
  return builder.finish(disk.length)
}

function readFrom(disk: Buffer) {
  return (bytes: Buffer, offsetBytes: number) => {
    bytes.fill(0)
    disk.subarray(offsetBytes, offsetBytes + bytes.length).copy(bytes)
  }
}

function parentOf(disk: Buffer): ParentDisk {
  const [view] = composeLayers([imported(disk)])
  const extents = view?.index.chunks.flatMap((_, chunk) => [...visibleExtents(view, chunk)]) ?? []
  return { extents, read: readFrom(disk) }
}

function layerOf(parent: Buffer, disk: Buffer, runs: AllocatedRun[]): LayerIndex {
  const written = { virtualSizeBytes: disk.length, runs: () => runs, read: readFrom(disk) }
  return makeLayer(written, parentOf(parent))
}

/** What a reader sees who lays the layer over its parent. */
function compose(parent: Buffer, layer: LayerIndex, disk: Buffer): Buffer {
  const seen = Buffer.alloc(layer.virtualSizeBytes)
  parent.copy(seen)
  for (const { offsetBytes, lengthBytes } of layer.zeros) {
    seen.fill(0, offsetBytes, offsetBytes + lengthBytes)
  }
  for (const { digest, extents } of layer.chunks) {
    const hash = createHash('sha256')
    for (const { offsetBytes, lengthBytes } of extents) {
      const part = disk.subarray(offsetBytes, offsetBytes + lengthBytes)
      hash.update(part)
      part.copy(seen, offsetBytes)
    }
    expect(digest).toBe(`sha256:${hash.digest('hex')}`)
  }
  return seen
}

function run(block: number, blocks: number, zero = false): AllocatedRun {
  return { offsetBytes: block * blockBytes, lengthBytes: blocks * blockBytes, zero }
}

const writes = fc.array(
  fc.record({
    block: fc.nat(diskBlocks - 1),
    blocks: fc.integer({ min: 1, max: 300 }),
    // 0 is a zero that was written as data; undefined one that was trimmed.
    byte: fc.option(fc.nat(2), { nil: undefined }),
  }),
  { maxLength: 12 },
)

/** Runs of what was written, one for each neighbourhood of the same kind. */
function runsOf(kinds: (boolean | undefined)[]): AllocatedRun[] {
  const runs: AllocatedRun[] = []
  for (const [block, zero] of kinds.entries()) {
    const last = runs.at(-1)
    if (zero === undefined) continue
    const touches = last !== undefined && last.offsetBytes + last.lengthBytes === block * blockBytes
    if (touches && last.zero === zero) last.lengthBytes += blockBytes
    else runs.push(run(block, 1, zero))
  }
  return runs
}

test('a layer over its parent is the disk, whatever was written and trimmed', () => {
  fc.assert(
    fc.property(writes, writes, (before, after) => {
      const parent = Buffer.alloc(parentBlocks * blockBytes)
      for (const { block, blocks, byte } of before) {
        for (let at = block; at < Math.min(block + blocks, parentBlocks); at++) {
          put(parent, at, byte ?? 0)
        }
      }
      const disk = Buffer.alloc(diskBlocks * blockBytes)
      parent.copy(disk)
      const kinds: (boolean | undefined)[] = new Array(diskBlocks)
      for (const { block, blocks, byte } of after) {
        for (let at = block; at < Math.min(block + blocks, diskBlocks); at++) {
          put(disk, at, byte ?? 0)
          kinds[at] = byte === undefined
        }
      }
      const layer = layerOf(parent, disk, runsOf(kinds))
      expect(compose(parent, layer, disk).equals(disk)).toBe(true)
      // Canonical, within all bounds, and nothing in it that the parent says already.
      expect(decodeLayerIndex(encodeLayerIndex(layer), defaultLimits)).toEqual(layer)
      const same = (extent: Extent) => [...blocksOf(extent)].some(at => isSame(parent, disk, at))
      expect(layer.chunks.some(({ extents }) => extents.some(same))).toBe(false)
      expect(layer.zeros.some(same)).toBe(false)
    }),
    { numRuns: 150 },
  )
})

function* blocksOf({ offsetBytes, lengthBytes }: Extent): Generator<number> {
  for (let at = offsetBytes; at < offsetBytes + lengthBytes; at += blockBytes) yield at
}

function isSame(parent: Buffer, disk: Buffer, at: number): boolean {
  const below = Buffer.alloc(blockBytes)
  readFrom(parent)(below, at)
  return below.equals(disk.subarray(at, at + blockBytes))
}

test('scattered blocks share chunks', () => {
  const parent = randomBytes(16 * chunkBytes)
  const disk = Buffer.from(parent)
  const runs: AllocatedRun[] = []
  for (let block = 3; block < 16 * 256; block += 8) {
    put(disk, block, 1 + (block % 250))
    runs.push(run(block, 1))
  }
  const layer = layerOf(parent, disk, runs)
  expect(layer.chunks.map(({ extents }) => extents.length)).toEqual([256, 256])
})

test('a window that is new is a chunk by itself', () => {
  const parent = randomBytes(8 * chunkBytes)
  const disk = Buffer.from(parent)
  randomBytes(2 * chunkBytes).copy(disk, 3 * chunkBytes)
  const hole = { start: 3 * chunkBytes + 5 * blockBytes, end: 3 * chunkBytes + 9 * blockBytes }
  disk.fill(0, hole.start, hole.end)
  put(disk, 1, 9)
  const layer = layerOf(parent, disk, [run(1, 1), run(3 * 256, 2 * 256)])
  expect(layer.chunks).toHaveLength(3)
  const fourth = 4 * chunkBytes
  expect(layer.chunks.slice(1).map(({ extents }) => extents)).toEqual([
    [
      { offsetBytes: 3 * chunkBytes, lengthBytes: hole.start - 3 * chunkBytes },
      { offsetBytes: hole.end, lengthBytes: fourth - hole.end },
    ],
    [{ offsetBytes: fourth, lengthBytes: chunkBytes }],
  ])
  expect(layer.zeros).toEqual([{ offsetBytes: hole.start, lengthBytes: hole.end - hole.start }])
})

test('what was written and is as before, or trimmed and was nothing, is no layer', () => {
  const parent = Buffer.concat([randomBytes(chunkBytes), Buffer.alloc(chunkBytes)])
  const layer = layerOf(parent, parent, [run(0, 256), run(256, 256, true)])
  expect(layer).toEqual({ virtualSizeBytes: 2 * chunkBytes, chunks: [], zeros: [] })
})
