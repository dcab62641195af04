import { hash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { assert, failure } from '../../base/errors.ts'
import { isErrno } from '../../base/files.ts'
import { createTurns } from '../../base/turns.ts'
import { composeLayers, type LayerView, visibleExtents } from '../composition.ts'
import { nameDiskFull } from '../disk-space.ts'
import { imageDigest } from '../encode-config.ts'
import { readAt, writeAt } from '../file-bytes.ts'
import { imageFiles } from '../image-files.ts'
import type { ImageConfig } from '../image-record.ts'
import { extentBytes, type LayerIndex } from '../layer-index.ts'
import { type BlockMap, createBlockMap } from './block-map.ts'
import type { ChunkName, PartialDisk } from './partial-disk.ts'
import { openPresentJournal, type PresentJournal } from './present-journal.ts'

/** Name of the journal of durable chunks in a partial image's folder. */
export const presentFile = 'present'

/** Which image's disk is opened. */
export interface PartialDiskInit {
  /** Holds disk.raw, of its full size, and the journal. */
  folder: string
  config: ImageConfig
  /** Those of the config, base first, checked (fit-layers.ts). */
  layers: readonly LayerIndex[]
}

/** A partial disk, for whoever makes its file. */
export interface FillablePartialDisk extends PartialDisk {
  /** Takes it that the file has what is seen of these chunks. They are durable after `flush`. */
  assume(names: Iterable<ChunkName>): void
}

interface Context {
  file: FileHandle
  folder: string
  views: LayerView[]
  /** The number, through all layers, of each layer's first chunk; and the sum at the end. */
  firsts: number[]
  map: BlockMap
  /** A bit for each chunk: here, or covered wholly. */
  here: Uint8Array
  wantedBytes: number
  presentBytes: number
  /** What was put and is not durable. */
  loose: number[]
  journal: PresentJournal
}

/**
 * Opens the disk of a partial image, and takes up what is there of it. Files are written without
 * waiting in between: for a thread of its own.
 * @throws the system's error; internal when the file has another size than the disk
 */
export async function openPartialDisk(init: PartialDiskInit): Promise<FillablePartialDisk> {
  const { folder, config } = init
  const file = await openFile(join(folder, imageFiles.disk))
  try {
    const { size } = await file.stat()
    if (size !== config.virtualSizeBytes) {
      throw failure('internal', { detail: `${folder} has a disk of ${size} bytes` })
    }
    const views = composeLayers(init.layers)
    const firsts = [0]
    for (const { index } of views) firsts.push((firsts.at(-1) ?? 0) + index.chunks.length)
    const chunkCount = firsts.at(-1) ?? 0
    const path = join(folder, presentFile)
    const digest = imageDigest(config)
    const { journal, chunks } = await openPresentJournal({ path, digest, chunkCount })
    const here = new Uint8Array((chunkCount + 7) >> 3)
    const map = createBlockMap(views)
    const sums = { wantedBytes: 0, presentBytes: 0 }
    const context = { ...{ file, folder, views, firsts, map, here, journal }, ...sums, loose: [] }
    takeUp(context, chunks)
    return createDisk(context, config.virtualSizeBytes)
  } catch (error) {
    await file.close()
    throw error
  }
}

/** A disk that is whole may be a file of another image, which nobody writes to. */
async function openFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r+')
  } catch (error) {
    if (!isErrno(error, 'EACCES')) throw error
    return await open(path, 'r')
  }
}

/** Counts what is wanted, and what of that the journal has. */
function takeUp(context: Context, chunks: readonly number[]): void {
  let number = 0
  for (const view of context.views) {
    for (const [chunk, { extents }] of view.index.chunks.entries()) {
      if (view.covered.get(chunk)?.length === 0) setBit(context.here, number)
      else context.wantedBytes += extentBytes(extents)
      number++
    }
  }
  for (const each of chunks) enter(context, each)
}

/** @returns whether it is new */
function enter(context: Context, number: number): boolean {
  if (hasBit(context.here, number)) return false
  setBit(context.here, number)
  context.presentBytes += extentBytes(chunkOf(context, nameOf(context, number)).extents)
  return true
}

function createDisk(context: Context, virtualSizeBytes: number): FillablePartialDisk {
  const { file, views, here, map, wantedBytes } = context
  const flushes = createTurns()
  return {
    virtualSizeBytes,
    layers: views,
    wantedBytes,
    presentBytes: () => context.presentBytes,
    has: name => hasBit(here, numberOf(context, name)),
    servable: layer => servable(context, layer),
    missing(offsetBytes, lengthBytes) {
      const numbers = new Set<number>()
      for (const number of map.chunksIn(offsetBytes, lengthBytes)) {
        if (!hasBit(here, number)) numbers.add(number)
      }
      return Array.from(numbers, number => nameOf(context, number))
    },
    *allMissing() {
      for (const [layer, { index }] of views.entries()) {
        for (const chunk of index.chunks.keys()) {
          if (!hasBit(here, numberOf(context, { layer, chunk }))) yield { layer, chunk }
        }
      }
    },
    put: async (name, bytes) => put(context, name, bytes),
    assume(names) {
      for (const name of names) {
        const number = numberOf(context, name)
        if (enter(context, number)) context.loose.push(number)
      }
    },
    flush: () => flushes.take(() => flush(context)),
    readChunk: async name => readChunk(context, name),
    async read(offsetBytes, lengthBytes) {
      const bytes = Buffer.allocUnsafe(lengthBytes)
      readAt(file.fd, bytes, 0, lengthBytes, offsetBytes)
      return bytes
    },
    async close() {
      await flushes.take(async () => {})
      await context.journal.close()
      await file.close()
    },
  }
}

function put(context: Context, name: ChunkName, bytes: Buffer): void {
  const number = numberOf(context, name)
  if (hasBit(context.here, number)) return
  const { digest, extents } = chunkOf(context, name)
  if (bytes.length !== extentBytes(extents)) {
    throw failure('chunkInvalid', { detail: `${digest} has ${bytes.length} bytes` })
  }
  checkDigest(bytes, digest)
  try {
    for (const run of visibleExtents(viewOf(context, name), name.chunk)) {
      const end = run.chunkOffsetBytes + run.lengthBytes
      writeAt(context.file.fd, bytes, run.chunkOffsetBytes, end, run.offsetBytes)
    }
  } catch (error) {
    throw nameDiskFull(error, context.folder)
  }
  enter(context, number)
  context.loose.push(number)
}

async function flush(context: Context): Promise<ChunkName[]> {
  const numbers = context.loose
  if (numbers.length === 0) return []
  context.loose = []
  try {
    await context.file.datasync()
    await context.journal.append(numbers)
  } catch (error) {
    // After a failed sync nobody knows which bytes the disk has: they are asked for anew.
    for (const number of numbers) {
      clearBit(context.here, number)
      const { extents } = chunkOf(context, nameOf(context, number))
      context.presentBytes -= extentBytes(extents)
    }
    throw nameDiskFull(error, context.folder)
  }
  return numbers.map(number => nameOf(context, number))
}

function servable(context: Context, layer: number): Uint8Array {
  const { index, covered } = viewOf(context, { layer })
  const bits = new Uint8Array((index.chunks.length + 7) >> 3)
  for (const chunk of index.chunks.keys()) {
    if (covered.has(chunk)) continue
    if (hasBit(context.here, numberOf(context, { layer, chunk }))) setBit(bits, chunk)
  }
  return bits
}

function readChunk(context: Context, name: ChunkName): Buffer {
  const { digest, extents } = chunkOf(context, name)
  const isHere = hasBit(context.here, numberOf(context, name))
  if (!isHere || viewOf(context, name).covered.has(name.chunk)) {
    throw failure('chunkInvalid', { detail: `${digest} is not here whole` })
  }
  const bytes = Buffer.allocUnsafe(extentBytes(extents))
  let at = 0
  for (const { offsetBytes, lengthBytes } of extents) {
    readAt(context.file.fd, bytes, at, at + lengthBytes, offsetBytes)
    at += lengthBytes
  }
  checkDigest(bytes, digest)
  return bytes
}

function checkDigest(bytes: Buffer, digest: string): void {
  const found = `sha256:${hash('sha256', bytes, 'hex')}`
  if (found !== digest) throw failure('chunkInvalid', { detail: `${found} is not ${digest}` })
}

function numberOf({ firsts }: Context, { layer, chunk }: ChunkName): number {
  const number = (firsts[layer] ?? Number.NaN) + chunk
  assert(chunk >= 0 && number < (firsts[layer + 1] ?? 0), `there is a chunk ${layer}/${chunk}`)
  return number
}

function nameOf({ firsts }: Context, number: number): ChunkName {
  const layer = firsts.findLastIndex(first => first <= number)
  return { layer, chunk: number - (firsts[layer] ?? 0) }
}

function viewOf({ views }: Context, { layer }: Pick<ChunkName, 'layer'>): LayerView {
  const view = views[layer]
  assert(view !== undefined, `there is a layer ${layer}`)
  return view
}

function chunkOf(context: Context, name: ChunkName): LayerIndex['chunks'][number] {
  const chunk = viewOf(context, name).index.chunks[name.chunk]
  assert(chunk !== undefined, `there is a chunk ${name.layer}/${name.chunk}`)
  return chunk
}

function hasBit(bits: Uint8Array, at: number): boolean {
  return (((bits[at >> 3] ?? 0) >> (at & 7)) & 1) === 1
}

function setBit(bits: Uint8Array, at: number): void {
  bits[at >> 3] = (bits[at >> 3] ?? 0) | (1 << (at & 7))
}

function clearBit(bits: Uint8Array, at: number): void {
  bits[at >> 3] = (bits[at >> 3] ?? 0) & ~(1 << (at & 7))
}
