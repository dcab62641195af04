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
import { assert, isFailure } from '../../base/errors.ts'
import { composeLayers, type LayerView, visibleExtents } from '../composition.ts'
import { subtractAll } from '../extents.ts'
import { readAt, writeAt } from '../file-bytes.ts'
import { readFittedLayers } from '../fit-layers.ts'
import { imageFiles } from '../image-files.ts'
import { chunkBytes, extentBytes } from '../layer-index.ts'
import { doTask, type TaskLine } from '../task-worker.ts'
import { type FillablePartialDisk, openPartialDisk } from './open-partial-disk.ts'
import type { ChunkName } from './partial-disk.ts'
import { type BasePlan, planBase } from './plan-base.ts'
import type {
  LocalPlace,
  PrepareAnswer,
  Prepared,
  PrepareQuestion,
  PrepareTask,
} from './prepare-messages.ts'

// Makes the disk of an image that is on its way out of what is here (prepare.ts).

/** Nobody else reads a disk of which parts may be wrong. */
const diskMode = 0o600
/** Chunks that are asked for at once, and bytes between two syncs. */
const chunksAsked = 500
/** Each hole costs a program's start; what is not worth it is written as zeros. */
const holesPunched = 64
const holeBytes = 1024 * 1024

type Line = TaskLine<PrepareQuestion, PrepareAnswer>

/** What is done, and what it is done with. */
interface Work {
  task: PrepareTask
  line: Line
  diskPath: string
}

async function prepare(work: Work): Promise<FillablePartialDisk> {
  const { task, diskPath } = work
  const { folder, config, bounds } = task
  const content = await readFittedLayers(folder, config, bounds)
  const open = () => openPartialDisk({ folder, config, layers: content.layers })
  if (task.work === 'check') return await open()
  const { virtualSizeBytes } = config
  if (task.base === undefined) {
    makeEmpty(diskPath, virtualSizeBytes)
    return await gather(work.line, await open())
  }
  const base = await readFittedLayers(task.base.folder, task.base.config, bounds)
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
  if (clone(basePath, diskPath)) {
    await clear(work, virtualSizeBytes, plan)
    const disk = await open()
    disk.assume(plan.kept)
    return await gather(work.line, disk)
  }
  makeEmpty(diskPath, virtualSizeBytes)
  const disk = await open()
  await copyCovered(work, disk, basePath, plan.kept, baseViews)
  return await gather(work.line, disk)
}

function makeEmpty(diskPath: string, sizeBytes: number): void {
  const file = openSync(diskPath, 'wx', diskMode)
  ftruncateSync(file, sizeBytes)
  closeSync(file)
}

/** @returns whether the file system can copy by reference */
function clone(from: string, diskPath: string): boolean {
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
async function clear(
  { line, diskPath }: Work,
  sizeBytes: number,
  { stale, holes: worthwhile }: BasePlan,
): Promise<void> {
  const file = openSync(diskPath, 'r+')
  try {
    ftruncateSync(file, sizeBytes)
    const largest = worthwhile.filter(({ lengthBytes }) => lengthBytes >= holeBytes)
    largest.sort((one, other) => other.lengthBytes - one.lengthBytes)
    const extents = largest.slice(0, holesPunched)
    const isPunched = extents.length > 0 && (await isGranted(line, { about: 'holes', extents }))
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
  { line, diskPath }: Work,
  disk: FillablePartialDisk,
  basePath: string,
  kept: readonly ChunkName[],
  base: readonly LayerView[],
): Promise<void> {
  const covered = kept.filter(({ layer, chunk }) => base[layer]?.covered.has(chunk))
  const neededBytes = covered.length * chunkBytes
  if (neededBytes > 0) await isGranted(line, { about: 'room', neededBytes })
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
async function gather(line: Line, disk: FillablePartialDisk): Promise<FillablePartialDisk> {
  const missing = [...disk.allMissing()]
  const files = new Map<string, number>()
  try {
    for (let at = 0; at < missing.length; at += chunksAsked) {
      const names = missing.slice(at, at + chunksAsked)
      const digests = names.map(({ layer, chunk }) => chunkOf(disk, { layer, chunk }).digest)
      const places = await askPlaces(line, digests)
      const found = names.flatMap((name, number) => {
        const place = places[number]
        return place === undefined ? [] : [{ name, place }]
      })
      if (found.length === 0) continue
      const neededBytes = found.reduce(
        (sum, { name }) => sum + extentBytes(chunkOf(disk, name).extents),
        0,
      )
      await isGranted(line, { about: 'room', neededBytes })
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

async function askPlaces(line: Line, digests: string[]): Promise<(LocalPlace | undefined)[]> {
  const answer = await line.ask({ about: 'places', digests })
  return 'places' in answer ? answer.places : []
}

async function isGranted(
  line: Line,
  question: Exclude<PrepareQuestion, { about: 'places' }>,
): Promise<boolean> {
  const answer = await line.ask(question)
  return 'isDone' in answer && answer.isDone
}

await doTask<PrepareTask, PrepareQuestion, PrepareAnswer>(async (task, line) => {
  const disk = await prepare({ task, line, diskPath: join(task.folder, imageFiles.disk) })
  try {
    if (task.work === 'prepare') {
      await disk.flush()
      const neededBytes = disk.wantedBytes - disk.presentBytes()
      if (neededBytes > 0) await isGranted(line, { about: 'room', neededBytes })
    }
    return {
      localBytes: task.work === 'prepare' ? disk.presentBytes() : 0,
      presentBytes: disk.presentBytes(),
      wantedBytes: disk.wantedBytes,
      servable: disk.layers.map((_, layer) => disk.servable(layer)),
    } satisfies Prepared
  } finally {
    await disk.close()
  }
})
