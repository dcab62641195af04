import { readSync } from 'node:fs'
import type { MacfleetError } from '../../base/errors.ts'
import { refusalFailure } from '../inspect-header.ts'
import { blockBytes, type Extent } from '../layer-index.ts'
import type { Qcow2Header } from '../qcow2-header.ts'
import { refuse } from '../refusal.ts'
import type { AllocatedDisk, AllocatedRun } from './layer-maker.ts'

/** What of a header, judged before (inspect-qcow2.ts), says where things lie. */
export interface Qcow2Layout {
  virtualSizeBytes: number
  clusterBits: number
  extendedL2: boolean
  l1TableOffset: number
  l1Entries: number
}

/** The layout that a header tells. */
export function layoutOf(header: Qcow2Header): Qcow2Layout {
  return {
    virtualSizeBytes: Number(header.sizeBytes),
    clusterBits: header.clusterBits,
    extendedL2: (header.incompatibleFeatures & extendedL2Bit) !== 0n,
    l1TableOffset: Number(header.l1TableOffset),
    l1Entries: header.l1Entries,
  }
}

const extendedL2Bit = 1n << 4n
const subclusters = 32

/** What one cluster holds; a bit for each subcluster (one for the whole without them). */
interface Cluster {
  fileOffset: number
  data: number
  zero: number
}

/**
 * Reads the allocated parts of a qcow2 file (QEMU, docs/interop/qcow2.txt) that anybody may have
 * written, or writes meanwhile: whatever its tables say is looked for in that one file, no other is
 * ever opened, and its data can't be more than the file. So neither a tool of QEMU nor a copy is
 * needed. It must have no compressed clusters: QEMU writes none into an overlay.
 * @param file a descriptor
 * @throws imageRefused (damaged)
 */
export function openQcow2Disk(file: number, fileBytes: number, layout: Qcow2Layout): AllocatedDisk {
  const { virtualSizeBytes, clusterBits, extendedL2 } = layout
  const clusterBytes = 2 ** clusterBits
  const parts = extendedL2 ? subclusters : 1
  const partBytes = clusterBytes / parts
  if (virtualSizeBytes % blockBytes !== 0 || partBytes % blockBytes !== 0) {
    throw damaged('its clusters are not made of whole blocks')
  }
  const entryBytes = extendedL2 ? 16 : 8
  const tableEntries = clusterBytes / entryBytes
  const table = Buffer.alloc(clusterBytes)
  let tableNumber = -1
  let tableIsThere = false

  const loadTable = (number: number): boolean => {
    if (number === tableNumber) return tableIsThere
    tableNumber = number
    tableIsThere = false
    if (number >= layout.l1Entries) throw damaged('its L1 table is too short')
    const entry = Buffer.alloc(8)
    readFully(file, entry, layout.l1TableOffset + number * 8)
    const offset = offsetIn(entry, 0)
    if (offset === 0) return false
    checkOffset(offset, clusterBytes, fileBytes)
    readFully(file, table, offset)
    tableIsThere = true
    return true
  }
  const clusterAt = (number: number): Cluster | undefined => {
    if (!loadTable(Math.floor(number / tableEntries))) return undefined
    const at = (number % tableEntries) * entryBytes
    const cluster = extendedL2 ? readExtended(table, at) : readPlain(table, at)
    if (cluster?.data) checkOffset(cluster.fileOffset, clusterBytes, fileBytes)
    return cluster
  }
  return {
    virtualSizeBytes,
    *runs() {
      // Each part of a file is in one place of the disk: more would be a lie without an end.
      let leftBytes = fileBytes
      const clusters = Math.ceil(virtualSizeBytes / clusterBytes)
      for (let number = 0; number < clusters; number++) {
        const cluster = clusterAt(number)
        if (cluster === undefined) {
          if (!tableIsThere) number += tableEntries - (number % tableEntries) - 1
          continue
        }
        for (const run of runsOf(cluster, number * clusterBytes, partBytes, parts)) {
          const lengthBytes = Math.min(run.lengthBytes, virtualSizeBytes - run.offsetBytes)
          if (lengthBytes <= 0) break
          if (!run.zero) leftBytes -= lengthBytes
          if (leftBytes < 0) throw damaged('its tables name more data than it has')
          yield { ...run, lengthBytes }
        }
      }
    },
    read(bytes, offsetBytes) {
      for (let at = 0; at < bytes.length; ) {
        const position = offsetBytes + at
        const within = position % partBytes
        const length = Math.min(partBytes - within, bytes.length - at)
        const cluster = clusterAt(Math.floor(position / clusterBytes))
        const part = Math.floor((position % clusterBytes) / partBytes)
        const target = bytes.subarray(at, at + length)
        if (cluster !== undefined && (cluster.data >>> part) & 1) {
          readFully(file, target, cluster.fileOffset + part * partBytes + within)
        } else {
          target.fill(0)
        }
        at += length
      }
    },
  }
}

function readPlain(table: Buffer, at: number): Cluster | undefined {
  refuseCompressed(table, at)
  const fileOffset = offsetIn(table, at)
  if (((table[at + 7] ?? 0) & 1) !== 0) return { fileOffset, data: 0, zero: 1 }
  return fileOffset === 0 ? undefined : { fileOffset, data: 1, zero: 0 }
}

function readExtended(table: Buffer, at: number): Cluster | undefined {
  const [zero, data] = [table.readUInt32BE(at + 8), table.readUInt32BE(at + 12)]
  if (zero === 0 && data === 0) return undefined
  refuseCompressed(table, at)
  if ((zero & data) !== 0) throw damaged('a part of it is both data and zero')
  const fileOffset = offsetIn(table, at)
  if (data !== 0 && fileOffset === 0) throw damaged('a part of it has data nowhere')
  return { fileOffset, data, zero }
}

function* runsOf(
  cluster: Cluster,
  startBytes: number,
  partBytes: number,
  parts: number,
): Generator<AllocatedRun> {
  let open: (Extent & { zero: boolean }) | undefined
  for (let part = 0; part < parts; part++) {
    const isZero = ((cluster.zero >>> part) & 1) === 1
    const isData = ((cluster.data >>> part) & 1) === 1
    if (open !== undefined && (isZero || isData) && open.zero === isZero) {
      open.lengthBytes += partBytes
      continue
    }
    if (open !== undefined) yield open
    const offsetBytes = startBytes + part * partBytes
    open = isZero || isData ? { offsetBytes, lengthBytes: partBytes, zero: isZero } : undefined
  }
  if (open !== undefined) yield open
}

/** Bits 9 to 55 of an entry, without the flags around them. */
function offsetIn(table: Buffer, at: number): number {
  const high = table.readUInt32BE(at) & 0x00ffffff
  const low = table.readUInt32BE(at + 4) & 0xfffffe00
  return high * 2 ** 32 + (low >>> 0)
}

function refuseCompressed(table: Buffer, at: number): void {
  if (((table[at] ?? 0) & 0x40) !== 0) throw damaged('a part of it is compressed')
}

function checkOffset(offset: number, clusterBytes: number, fileBytes: number): void {
  if (offset % clusterBytes !== 0) throw damaged('a cluster is not on a cluster border')
  if (offset >= fileBytes) throw damaged('a cluster lies beyond the end of the file')
}

/** What lies beyond the end of a file that grew by less than a cluster is zero. */
function readFully(file: number, bytes: Buffer, offset: number): void {
  for (let at = 0; at < bytes.length; ) {
    const read = readSync(file, bytes, at, bytes.length - at, offset + at)
    if (read === 0) {
      bytes.fill(0, at)
      return
    }
    at += read
  }
}

function damaged(detail: string): MacfleetError {
  return refusalFailure(refuse('damaged', detail))
}
