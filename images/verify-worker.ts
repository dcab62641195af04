import { hash } from 'node:crypto'
import { closeSync, fdatasyncSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { composeLayers, type LayerView, visibleExtents } from './composition.ts'
import { subtractAll, unite } from './extents.ts'
import { readAt, writeAt } from './file-bytes.ts'
import { readFittedLayers } from './fit-layers.ts'
import { imageFiles } from './image-files.ts'
import { blockBytes, chunkBytes, extentBytes, type LayerChunk } from './layer-index.ts'
import { doTask, type TaskLine } from './task-worker.ts'
import type {
  DiskVerification,
  VerifyAnswer,
  VerifyQuestion,
  VerifyTask,
} from './verify-messages.ts'

// Reads a disk anew and holds it against its layers (verify-image.ts).

const progressBytes = 16 * 1024 * 1024
const zeros = Buffer.alloc(chunkBytes)

interface Work {
  task: VerifyTask
  line: TaskLine<VerifyQuestion, VerifyAnswer>
  file: number
  found: DiskVerification
  doneBytes: number
  announcedBytes: number
}

function tell(work: Work, bytes: number): void {
  work.doneBytes += bytes
  if (work.doneBytes - work.announcedBytes < progressBytes) return
  work.announcedBytes = work.doneBytes
  work.line.tell(work.doneBytes)
}

function digestOf(bytes: Uint8Array): string {
  return `sha256:${hash('sha256', bytes, 'hex')}`
}

async function verifyChunks(work: Work, views: readonly LayerView[]): Promise<void> {
  const bytes = Buffer.allocUnsafe(chunkBytes)
  for (const [layer, view] of views.entries()) {
    for (const [number, chunk] of view.index.chunks.entries()) {
      const seen = visibleExtents(view, number)
      if (seen.length === 0) continue
      const length = extentBytes(seen)
      let at = 0
      for (const { offsetBytes, lengthBytes } of seen) {
        readAt(work.file, bytes, at, at + lengthBytes, offsetBytes)
        at += lengthBytes
      }
      const name = { layer, chunk: number, digest: chunk.digest }
      if (view.covered.has(number)) {
        await compareCovered(work, view, name, bytes.subarray(0, length))
      } else if (digestOf(bytes.subarray(0, length)) === chunk.digest) {
        work.found.checkedChunks++
      } else {
        work.found.checkedChunks++
        const right = work.task.isRepair ? await askChunk(work, name, chunk) : undefined
        report(work, view, name, right)
      }
      tell(work, length)
    }
  }
}

/** The hash of a chunk needs all of it: what a layer above hides must come from elsewhere. */
async function compareCovered(
  work: Work,
  view: LayerView,
  name: VerifyQuestion,
  found: Buffer,
): Promise<void> {
  const chunk = view.index.chunks[name.chunk]
  const right = chunk && (await askChunk(work, name, chunk))
  if (right === undefined) {
    work.found.uncheckedChunks++
    return
  }
  work.found.checkedChunks++
  const parts = visibleExtents(view, name.chunk).map(({ chunkOffsetBytes, lengthBytes }) =>
    right.subarray(chunkOffsetBytes, chunkOffsetBytes + lengthBytes),
  )
  if (!Buffer.concat(parts).equals(found)) report(work, view, name, right)
}

/** @returns a chunk's bytes, compared with its digest; undefined when nobody has them right */
async function askChunk(
  work: Work,
  name: VerifyQuestion,
  { digest, extents }: LayerChunk,
): Promise<Buffer | undefined> {
  const answer = await work.line.ask(name)
  if (answer === undefined || answer.length !== extentBytes(extents)) return undefined
  const bytes = Buffer.from(answer.buffer, answer.byteOffset, answer.byteLength)
  return digestOf(bytes) === digest ? bytes : undefined
}

/** Notes a bad chunk, and writes what is seen of it anew when its right bytes are there. */
function report(
  work: Work,
  view: LayerView,
  name: VerifyQuestion,
  right: Buffer | undefined,
): void {
  const seen = visibleExtents(view, name.chunk)
  const isRepaired = work.task.isRepair && right !== undefined
  if (isRepaired) {
    for (const { offsetBytes, lengthBytes, chunkOffsetBytes } of seen) {
      writeAt(work.file, right, chunkOffsetBytes, chunkOffsetBytes + lengthBytes, offsetBytes)
    }
  }
  const offset = seen[0]?.offsetBytes ?? 0
  work.found.bad.push({ digest: name.digest, offset, isRepaired })
}

/** What no layer has data for must be zero. */
function verifyHoles(work: Work, views: readonly LayerView[]): void {
  const seen = views.flatMap(view =>
    [...view.index.chunks.keys()].flatMap(number => visibleExtents(view, number)),
  )
  const sizeBytes = work.task.config.virtualSizeBytes
  const bytes = Buffer.allocUnsafe(chunkBytes)
  for (const hole of subtractAll(wholeBlocks(work.task.ranges, sizeBytes), unite(seen, []))) {
    for (let at = 0; at < hole.lengthBytes; at += chunkBytes) {
      const length = Math.min(chunkBytes, hole.lengthBytes - at)
      readAt(work.file, bytes, 0, length, hole.offsetBytes + at)
      const part = bytes.subarray(0, length)
      if (!part.equals(zeros.subarray(0, length))) reportHole(work, hole.offsetBytes + at, part)
      tell(work, length)
    }
  }
}

function reportHole(work: Work, offsetBytes: number, bytes: Buffer): void {
  const first = bytes.findIndex(byte => byte !== 0)
  const at = Math.floor(first / blockBytes) * blockBytes
  const digest = digestOf(bytes.subarray(at))
  const { isRepair } = work.task
  if (isRepair) writeAt(work.file, zeros, at, bytes.length, offsetBytes + at)
  work.found.bad.push({ digest, offset: offsetBytes + at, isRepaired: isRepair })
}

function wholeBlocks(ranges: VerifyTask['ranges'], sizeBytes: number): VerifyTask['ranges'] {
  const blocks = ranges.map(({ offsetBytes, lengthBytes }) => {
    const start = Math.floor(offsetBytes / blockBytes) * blockBytes
    const end = Math.ceil((offsetBytes + lengthBytes) / blockBytes) * blockBytes
    return { offsetBytes: start, lengthBytes: Math.max(0, Math.min(end, sizeBytes) - start) }
  })
  return unite(blocks, [])
}

await doTask<VerifyTask, VerifyQuestion, VerifyAnswer>(async (task, line) => {
  const { folder, config, bounds } = task
  const views = composeLayers((await readFittedLayers(folder, config, bounds)).layers)
  const file = openSync(join(folder, imageFiles.disk), task.isRepair ? 'r+' : 'r')
  try {
    const found: DiskVerification = { checkedChunks: 0, uncheckedChunks: 0, bad: [] }
    const work: Work = { task, line, file, found, doneBytes: 0, announcedBytes: 0 }
    await verifyChunks(work, views)
    verifyHoles(work, views)
    if (task.isRepair) fdatasyncSync(file)
    found.bad.sort((one, other) => one.offset - other.offset)
    return found
  } finally {
    closeSync(file)
  }
})
