import { hash } from 'node:crypto'
import {
  blockBytes,
  chunkBytes,
  type Extent,
  type LayerChunk,
  type LayerIndex,
} from '../layer-index.ts'

/** A run of a disk that was written; it is made of whole blocks. */
export interface AllocatedRun extends Extent {
  /** It was zeroed or trimmed; else it has bytes. */
  zero: boolean
}

/** A disk of which parts were written, and the rest is as in the disk below it. */
export interface AllocatedDisk {
  virtualSizeBytes: number
  /** In order of the disk. */
  runs(): Iterable<AllocatedRun>
  /** Fills `bytes` from a place in its runs. */
  read(bytes: Buffer, offsetBytes: number): void
}

/** The disk below. */
export interface ParentDisk {
  /** What of it is not zero, in order; a block in it that is zero all the same does no harm. */
  extents: readonly Extent[]
  /** Fills `bytes` from a place in it; zeros beyond its end. */
  read(bytes: Buffer, offsetBytes: number): void
}

const blocksPerWindow = chunkBytes / blockBytes
/** A window that is more than half new and needs nothing from below is a chunk by itself. */
const ownChunkBlocks = blocksPerWindow / 2
const zeroBlock = Buffer.alloc(blockBytes)

/** One window of 1 MiB, by its blocks. */
interface Window {
  startBytes: number
  bytes: Buffer
  /** Blocks that were written, with the bytes in `bytes`, or zeroed. */
  written: Uint8Array
  zeroed: Uint8Array
}

/**
 * The layer that makes the disk out of the one below it. Blocks that were written and are as below
 * are left out, ones that became zero are zero extents; the rest is gathered, in order of the disk,
 * into chunks of up to 1 MiB, so that scattered blocks share one. A window of 1 MiB of which
 * nothing is left from below becomes the chunk that an import would make of it, which others may
 * have already. The layer depends on the bytes of both disks alone, not on how they are kept.
 * @param onProgress told the place on the disk after each window
 */
export function makeLayer(
  disk: AllocatedDisk,
  parent: ParentDisk,
  onProgress: (doneBytes: number) => void = () => {},
): LayerIndex {
  const { virtualSizeBytes } = disk
  const gatherer = createGatherer()
  const zeros: Extent[] = []
  const below = createBelow(parent)
  for (const window of windowsOf(disk)) {
    const { startBytes, bytes, written, zeroed } = window
    const seen = below.blocks(startBytes)
    const fresh: Extent[] = []
    let freshBlocks = 0
    let inherits = false
    for (let block = 0; block < blocksPerWindow; block++) {
      const [start, end] = [block * blockBytes, (block + 1) * blockBytes]
      const hasData =
        written[block] === 1 && bytes.compare(zeroBlock, 0, blockBytes, start, end) !== 0
      if (hasData && !(seen[block] && below.isSame(startBytes, bytes, start, end))) {
        extend(fresh, startBytes + start)
        freshBlocks++
      } else if (!hasData && (written[block] || zeroed[block])) {
        if (seen[block]) extend(zeros, startBytes + start)
      } else if (seen[block]) {
        inherits = true
      }
    }
    gatherer.add(window, fresh, !inherits && freshBlocks > ownChunkBlocks)
    onProgress(startBytes + chunkBytes)
  }
  return { virtualSizeBytes, chunks: gatherer.finish(), zeros }
}

/** Adds a block to extents that it follows. */
function extend(extents: Extent[], offsetBytes: number): void {
  const last = extents.at(-1)
  if (last !== undefined && last.offsetBytes + last.lengthBytes === offsetBytes) {
    last.lengthBytes += blockBytes
  } else {
    extents.push({ offsetBytes, lengthBytes: blockBytes })
  }
}

/** The windows that something was written in. What one holds is gone with the next. */
function* windowsOf(disk: AllocatedDisk): Generator<Window> {
  const window: Window = {
    startBytes: -1,
    bytes: Buffer.alloc(chunkBytes),
    written: new Uint8Array(blocksPerWindow),
    zeroed: new Uint8Array(blocksPerWindow),
  }
  for (const { offsetBytes, lengthBytes, zero } of disk.runs()) {
    const end = offsetBytes + lengthBytes
    for (let at = offsetBytes; at < end; ) {
      const within = at % chunkBytes
      const length = Math.min(end - at, chunkBytes - within)
      if (at - within !== window.startBytes) {
        if (window.startBytes >= 0) yield window
        window.startBytes = at - within
        window.written.fill(0)
        window.zeroed.fill(0)
      }
      const blocks = zero ? window.zeroed : window.written
      blocks.fill(1, within / blockBytes, (within + length) / blockBytes)
      if (!zero) disk.read(window.bytes.subarray(within, within + length), at)
      at += length
    }
  }
  if (window.startBytes >= 0) yield window
}

/** Looks at the disk below, window by window, in order. */
function createBelow({ extents, read }: ParentDisk) {
  const bytes = Buffer.alloc(chunkBytes)
  const seen = new Uint8Array(blocksPerWindow)
  let readBytes = -1
  let at = 0
  return {
    /** A one for each block that is not zero there. */
    blocks(startBytes: number): Uint8Array {
      seen.fill(0)
      const endBytes = startBytes + chunkBytes
      for (; ; at++) {
        const extent = extents[at]
        if (extent === undefined || extent.offsetBytes >= endBytes) break
        const extentEnd = extent.offsetBytes + extent.lengthBytes
        const from = Math.max(extent.offsetBytes, startBytes) - startBytes
        const to = Math.min(extentEnd, endBytes) - startBytes
        if (to > from) seen.fill(1, from / blockBytes, to / blockBytes)
        // It may reach into the next window.
        if (extentEnd > endBytes) break
      }
      return seen
    },
    isSame(startBytes: number, window: Buffer, start: number, end: number): boolean {
      if (readBytes !== startBytes) read(bytes, startBytes)
      readBytes = startBytes
      return window.compare(bytes, start, end, start, end) === 0
    },
  }
}

/** Puts extents into chunks. */
function createGatherer() {
  const chunks: LayerChunk[] = []
  const bytes = Buffer.alloc(chunkBytes)
  let filled = 0
  let extents: Extent[] = []
  const flush = () => {
    if (filled === 0) return
    const digest = `sha256:${hash('sha256', bytes.subarray(0, filled), 'hex')}`
    chunks.push({ digest, extents })
    extents = []
    filled = 0
  }
  const put = (offsetBytes: number, part: Buffer) => {
    const last = extents.at(-1)
    if (last !== undefined && last.offsetBytes + last.lengthBytes === offsetBytes) {
      last.lengthBytes += part.length
    } else {
      extents.push({ offsetBytes, lengthBytes: part.length })
    }
    part.copy(bytes, filled)
    filled += part.length
  }
  return {
    add(window: Window, fresh: readonly Extent[], isOwn: boolean): void {
      if (isOwn) flush()
      for (const { offsetBytes, lengthBytes } of fresh) {
        const start = offsetBytes - window.startBytes
        for (let at = 0; at < lengthBytes; ) {
          if (filled === chunkBytes) flush()
          const length = Math.min(lengthBytes - at, chunkBytes - filled)
          put(offsetBytes + at, window.bytes.subarray(start + at, start + at + length))
          at += length
        }
      }
      if (isOwn) flush()
    },
    finish(): LayerChunk[] {
      flush()
      return chunks
    },
  }
}
