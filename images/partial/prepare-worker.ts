import { once } from 'node:events'
import {
  chmodSync,
  closeSync,
  constants,
  copyFileSync,
  ftruncateSync,
  linkSync,
  openSync,
  rmSync,
} from 'node:fs'
import { join } from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'
import { assert, isFailure, MacfleetError } from '../../base/errors.ts'
import { composeLayers, type LayerView, visibleExtents } from '../composition.ts'
import { subtractAll } from '../extents.ts'
import { readAt, writeAt } from '../file-bytes.ts'
import { imageFiles } from '../image-folder.ts'
import { chunkBytes, type Extent, extentBytes } from '../layer-index.ts'
import { type FillablePartialDisk, openPartialDisk } from './open-partial-disk.ts'
import type { ChunkName } from './partial-disk.ts'
import { readPartialFolder } from './partial-folder.ts'
import { planBase } from './plan-base.ts'
import type { FromPreparer, LocalPlace, PrepareTask, ToPreparer } from './prepare-messages.ts'

// A thread of its own: it copies and hashes without a pause, and the daemon's event loop goes on.

/** Nobody else reads a disk of which parts may be wrong. */
const diskMode = 0o600
/** Chunks that are asked for at once, and bytes between two syncs. */
const chunksAsked = 500
/** Each hole costs a program's start; what is not worth it is written as zeros. */
const holesPunched = 64
const holeBytes = 1024 * 1024

assert(parentPort, 'this file runs as a worker thread')
const port = parentPort
const task: PrepareTask = workerData
const diskPath = join(task.folder, imageFiles.disk)

async function ask<Type extends ToPreparer['type']>(
  message: FromPreparer,
  type: Type,
): Promise<ToPreparer & { type: Type }> {
  port.postMessage(message)
  const [answer]: ToPreparer[] = await once(port, 'message')
  assert(answer?.type === type, `the answer is ${type}`)
  return answer as ToPreparer & { type: Type }
}

async function prepare(): Promise<FillablePartialDisk> {
  const content = await readPartialFolder(task.folder, task.digest, task.bounds)
  const open = () => openPartialDisk({ folder: task.folder, ...content })
  if (task.work === 'check') return await open()
  const { virtualSizeBytes } = content.config
  if (task.base === undefined) {
    makeEmpty(virtualSizeBytes)
    return await gather(await open())
  }
  const base = await readPartialFolder(task.base.folder, task.base.digest, task.bounds)
  const basePath = join(task.base.folder, imageFiles.disk)
  const { sharedLayers } = task.base
  if (sharedLayers === base.layers.length && sharedLayers === content.layers.length) {
    // The same disk, which nobody will write to because nothing of it is missing.
    linkSync(basePath, diskPath)
    const disk = await open()
    disk.assume(disk.allMissing())
    return disk
  }
  const baseViews = composeLayers(base.layers)
  const plan = planBase(composeLayers(content.layers), baseViews, sharedLayers)
  if (clone(basePath)) {
    await clear(virtualSizeBytes, plan.stale)
    const disk = await open()
    disk.assume(plan.kept)
    return await gather(disk)
  }
  makeEmpty(virtualSizeBytes)
  const disk = await open()
  await copyCovered(disk, basePath, plan.kept, baseViews)
  return await gather(disk)
}

function makeEmpty(sizeBytes: number): void {
  const file = openSync(diskPath, 'wx', diskMode)
  ftruncateSync(file, sizeBytes)
  closeSync(file)
}

/** @returns whether the file system can copy by reference */
function clone(from: string): boolean {
  try {
    copyFileSync(from, diskPath, constants.COPYFILE_FICLONE_FORCE | constants.COPYFILE_EXCL)
    chmodSync(diskPath, diskMode)
    return true
  } catch {
    rmSync(diskPath, { force: true })
    return false
  }
}

/** Makes a copied disk zero where it should be, with holes where that is worth a program's start. */
async function clear(sizeBytes: number, stale: readonly Extent[]): Promise<void> {
  const file = openSync(diskPath, 'r+')
  try {
    ftruncateSync(file, sizeBytes)
    const largest = stale.filter(({ lengthBytes }) => lengthBytes >= holeBytes)
    largest.sort((one, other) => other.lengthBytes - one.lengthBytes)
    const extents = largest.slice(0, holesPunched)
    const isPunched =
      extents.length > 0 && (await ask({ type: 'punch', extents }, 'punched')).isDone
    const holes = extents.sort((one, other) => one.offsetBytes - other.offsetBytes)
    const zeros = Buffer.alloc(chunkBytes)
    for (const { offsetBytes, lengthBytes } of isPunched ? subtractAll(stale, holes) : stale) {
      for (let at = 0; at < lengthBytes; at += zeros.length) {
        const part = Math.min(zeros.length, lengthBytes - at)
        writeAt(file, zeros, 0, part, offsetBytes + at)
      }
    }
  } finally {
    closeSync(file)
  }
}

/**
 * Copies chunks that no file here has whole, because the base hides a part of each: what is seen of
 * them was verified when the base was made.
 */
async function copyCovered(
  disk: FillablePartialDisk,
  basePath: string,
  kept: readonly ChunkName[],
  base: readonly LayerView[],
): Promise<void> {
  const covered = kept.filter(({ layer, chunk }) => base[layer]?.covered.has(chunk))
  const neededBytes = covered.length * chunkBytes
  if (neededBytes > 0) await ask({ type: 'demand', neededBytes }, 'granted')
  const from = openSync(basePath, 'r')
  const to = openSync(diskPath, 'r+')
  const bytes = Buffer.allocUnsafe(chunkBytes)
  try {
    for (const { layer, chunk } of covered) {
      const view = disk.layers[layer]
      assert(view, `there is a layer ${layer}`)
      for (const { offsetBytes, lengthBytes } of visibleExtents(view, chunk)) {
        readAt(from, bytes, 0, lengthBytes, offsetBytes)
        writeAt(to, bytes, 0, lengthBytes, offsetBytes)
      }
    }
  } finally {
    closeSync(from)
    closeSync(to)
  }
  disk.assume(covered)
}

/** Copies whatever chunk another file here has whole. */
async function gather(disk: FillablePartialDisk): Promise<FillablePartialDisk> {
  const missing = [...disk.allMissing()]
  const files = new Map<string, number>()
  try {
    for (let at = 0; at < missing.length; at += chunksAsked) {
      const names = missing.slice(at, at + chunksAsked)
      const digests = names.map(({ layer, chunk }) => chunkOf(disk, { layer, chunk }).digest)
      const { places } = await ask({ type: 'find', digests }, 'places')
      const found = names.flatMap((name, number) => {
        const place = places[number]
        return place === undefined ? [] : [{ name, place }]
      })
      if (found.length === 0) continue
      const neededBytes = found.reduce(
        (sum, { name }) => sum + extentBytes(chunkOf(disk, name).extents),
        0,
      )
      await ask({ type: 'demand', neededBytes }, 'granted')
      for (const { name, place } of found) await copyChunk(disk, name, place, files)
      await disk.flush()
    }
    return disk
  } finally {
    for (const file of files.values()) closeSync(file)
  }
}

async function copyChunk(
  disk: FillablePartialDisk,
  name: ChunkName,
  place: LocalPlace,
  files: Map<string, number>,
): Promise<void> {
  const bytes = Buffer.allocUnsafe(extentBytes(place.extents))
  try {
    const file = files.get(place.path) ?? openSync(place.path, 'r')
    files.set(place.path, file)
    let at = 0
    for (const { offsetBytes, lengthBytes } of place.extents) {
      readAt(file, bytes, at, at + lengthBytes, offsetBytes)
      at += lengthBytes
    }
  } catch {
    // The other image is gone, or its disk can't be read: the chunk comes from elsewhere.
    return
  }
  try {
    await disk.put(name, bytes)
  } catch (error) {
    if (!isFailure(error, 'chunkInvalid')) throw error
  }
}

function chunkOf(disk: FillablePartialDisk, { layer, chunk }: ChunkName) {
  const found = disk.layers[layer]?.index.chunks[chunk]
  assert(found, `there is a chunk ${layer}/${chunk}`)
  return found
}

async function run(): Promise<void> {
  const disk = await prepare()
  try {
    if (task.work === 'prepare') {
      await disk.flush()
      const neededBytes = disk.wantedBytes - disk.presentBytes()
      if (neededBytes > 0) await ask({ type: 'demand', neededBytes }, 'granted')
    }
    port.postMessage({
      type: 'done',
      localBytes: task.work === 'prepare' ? disk.presentBytes() : 0,
      presentBytes: disk.presentBytes(),
      wantedBytes: disk.wantedBytes,
      servable: disk.layers.map((_, layer) => disk.servable(layer)),
    } satisfies FromPreparer)
  } finally {
    await disk.close()
  }
}

try {
  await run()
} catch (error) {
  const named = error instanceof MacfleetError
  const system = error instanceof Error && 'code' in error ? String(error.code) : ''
  port.postMessage({
    type: 'failed',
    code: named ? error.code : system,
    values: named ? { ...error.values } : {},
    message: error instanceof Error ? error.message : String(error),
  } satisfies FromPreparer)
}
