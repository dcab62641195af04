import { type Qcow2Header, readQcow2Header } from './qcow2-header.ts'
import { type Refusal, refuse } from './refusal.ts'

/** A qcow2 file that may be converted. */
export interface Qcow2Facts {
  format: 'qcow2'
  virtualSizeBytes: number
  version: 2 | 3
  clusterBytes: number
  compression: 'zlib' | 'zstd'
  extendedL2: boolean
}

interface Bounds {
  fileBytes: number
  diskBytes: number
}

type Check = (header: Qcow2Header, head: Buffer, bounds: Bounds) => Refusal | undefined

const MiB = 1024 * 1024
const sectorBytes = 512
const bit = (number: number) => 1n << BigInt(number)
const dirtyBit = bit(0)
const corruptBit = bit(1)
const dataFileBit = bit(2)
const compressionBit = bit(3)
const extendedL2Bit = bit(4)
const knownBits = dirtyBit | corruptBit | dataFileBit | compressionBit | extendedL2Bit
const flatten = 'Make a copy that stands alone with `qemu-img convert`, and import that'

/**
 * Judges the header of a qcow2 file (QEMU, docs/interop/qcow2.txt). What could make QEMU open
 * another file, what it does not know, and what does not fit into the file is refused. The tables
 * that the header points to are left to `qemu-img check`, which runs without privileges.
 */
export function inspectQcow2(head: Buffer, bounds: Bounds): Qcow2Facts | Refusal {
  const header = readQcow2Header(head)
  if (header === undefined) return refuse('truncated', 'its header is cut short')
  for (const check of checks) {
    const refusal = check(header, head, bounds)
    if (refusal !== undefined) return refusal
  }
  return {
    format: 'qcow2',
    virtualSizeBytes: Number(header.sizeBytes),
    version: header.version === 2 ? 2 : 3,
    clusterBytes: clusterBytesOf(header),
    compression: header.compressionType === 1 ? 'zstd' : 'zlib',
    extendedL2: has(header, extendedL2Bit),
  }
}

const checkVersion: Check = header => {
  if (header.version === 2 || header.version === 3) return
  return refuse('unknownVersion', `it is qcow version ${header.version}; 2 and 3 are known`)
}

const checkHeaderLength: Check = header => {
  if (header.version === 2) return
  const { headerBytes } = header
  if (headerBytes >= 104 && headerBytes % 8 === 0 && headerBytes <= clusterBytesOf(header)) return
  return refuse('headerLength', `its header claims a length of ${headerBytes} bytes`)
}

const checkFeatures: Check = header => {
  const unknown = header.incompatibleFeatures & ~knownBits
  if (unknown !== 0n) {
    return refuse(
      'unknownFeature',
      `it needs features that are unknown (0x${unknown.toString(16)})`,
    )
  }
  if (has(header, dataFileBit)) {
    return refuse('externalDataFile', 'its data is in another file, which it names', flatten)
  }
  if (has(header, corruptBit)) {
    return refuse('corrupt', 'QEMU has marked it as corrupt', 'Get the file anew')
  }
  if (has(header, dirtyBit)) {
    return refuse(
      'dirty',
      'it was not closed cleanly',
      'Shut down the machine that uses it, or run `qemu-img check -r all` on a copy',
    )
  }
  return
}

const checkBackingFile: Check = header => {
  if (header.backingFileOffset === 0n) return
  return refuse('backingFile', 'it is an overlay: it names a backing file', flatten)
}

const checkSnapshots: Check = header => {
  if (header.snapshotCount === 0) return
  return refuse('snapshots', `it holds ${header.snapshotCount} snapshots`, flatten)
}

const checkEncryption: Check = header => {
  if (header.cryptMethod === 0) return
  return refuse('encrypted', 'it is encrypted', 'Decrypt it with `qemu-img convert` first')
}

const checkClusterSize: Check = header => {
  const least = has(header, extendedL2Bit) ? 14 : 9
  if (header.clusterBits >= least && header.clusterBits <= 21) return
  return refuse('clusterSize', `its clusters have 2^${header.clusterBits} bytes`)
}

const checkRefcounts: Check = (header, _head, { fileBytes }) => {
  if (header.refcountOrder > 6) {
    return refuse('refcountOrder', `its refcounts have 2^${header.refcountOrder} bits`)
  }
  const tableBytes = header.refcountTableClusters * clusterBytesOf(header)
  if (tableBytes === 0 || tableBytes > 8 * MiB) {
    return refuse('tableOutOfRange', `its refcount table has ${tableBytes} bytes`)
  }
  return checkTable('refcount table', header.refcountTableOffset, tableBytes, header, fileBytes)
}

const checkSize: Check = (header, _head, { diskBytes }) => {
  if (header.sizeBytes === 0n) return refuse('noSize', 'its disk has no size')
  if (header.sizeBytes > BigInt(diskBytes)) {
    const limit = `the limit of ${diskBytes}`
    return refuse('tooLarge', `its disk claims ${header.sizeBytes} bytes, more than ${limit}`)
  }
  if (header.sizeBytes % BigInt(sectorBytes) === 0n) return
  return refuse('sizeNotWholeSectors', `its disk has ${header.sizeBytes} bytes: no whole sectors`)
}

const checkL1Table: Check = (header, _head, { fileBytes }) => {
  const clusterBytes = clusterBytesOf(header)
  const entryBytes = has(header, extendedL2Bit) ? 16 : 8
  const reachBytes = clusterBytes * (clusterBytes / entryBytes)
  const needed = Math.ceil(Number(header.sizeBytes) / reachBytes)
  const tableBytes = header.l1Entries * 8
  if (header.l1Entries < needed || tableBytes > 32 * MiB) {
    const wanted = `${needed} are needed`
    return refuse('tableOutOfRange', `its L1 table has ${header.l1Entries} entries; ${wanted}`)
  }
  return checkTable('L1 table', header.l1TableOffset, tableBytes, header, fileBytes)
}

const checkCompression: Check = header => {
  const stated = has(header, compressionBit)
  if (stated ? header.compressionType === 1 : header.compressionType === 0) return
  return refuse('compressionType', `its compression ${header.compressionType} is not known`)
}

const extensionTypes = {
  end: 0x00000000,
  encryption: 0x0537be77,
  bitmaps: 0x23852875,
  dataFile: 0x44415441,
}
/** More than QEMU knows of; a header full of empty ones is no image but an attack. */
const extensionsMax = 64

const checkExtensions: Check = (header, head, { fileBytes }) => {
  const end = Math.min(clusterBytesOf(header), fileBytes, head.length)
  const seen = new Set<number>()
  let at = header.headerBytes
  while (at + 8 <= end) {
    const type = head.readUInt32BE(at)
    const length = head.readUInt32BE(at + 4)
    if (type === extensionTypes.end) return
    if (seen.has(type) || seen.size >= extensionsMax) {
      return refuse(
        'extensionOutOfRange',
        'a header extension is there twice, or there are too many',
      )
    }
    seen.add(type)
    if (length > end - at - 8) {
      return refuse('extensionOutOfRange', 'a header extension is longer than the header')
    }
    const data = head.subarray(at + 8, at + 8 + length)
    const refusal = checkExtension(type, data, header, fileBytes)
    if (refusal !== undefined) return refusal
    at += 8 + Math.ceil(length / 8) * 8
  }
  return
}

function checkExtension(type: number, data: Buffer, header: Qcow2Header, fileBytes: number) {
  if (type === extensionTypes.dataFile) {
    return refuse('externalDataFile', 'its header names an external data file', flatten)
  }
  if (type === extensionTypes.encryption) return refuse('encrypted', 'it has an encryption header')
  if (type !== extensionTypes.bitmaps) return
  if (data.length < 24) return refuse('bitmapsOutOfRange', 'its bitmaps extension is cut short')
  const bytes = data.readBigUInt64BE(8)
  if (data.readUInt32BE(0) > 65535 || bytes > BigInt(64 * MiB)) {
    return refuse('bitmapsOutOfRange', 'its bitmap directory is too large')
  }
  return checkTable('bitmap directory', data.readBigUInt64BE(16), Number(bytes), header, fileBytes)
}

const checks: readonly Check[] = [
  checkVersion,
  checkClusterSize,
  checkHeaderLength,
  checkFeatures,
  checkBackingFile,
  checkEncryption,
  checkSnapshots,
  checkCompression,
  checkSize,
  checkRefcounts,
  checkL1Table,
  checkExtensions,
]

function checkTable(
  name: string,
  offset: bigint,
  lengthBytes: number,
  header: Qcow2Header,
  fileBytes: number,
): Refusal | undefined {
  if (offset % BigInt(clusterBytesOf(header)) !== 0n || offset === 0n) {
    return refuse('tableOutOfRange', `its ${name} is not on a cluster border`)
  }
  if (offset + BigInt(lengthBytes) <= BigInt(fileBytes)) return
  return refuse('truncated', `its ${name} lies beyond the end of the file`, 'Get the file anew')
}

function clusterBytesOf(header: Qcow2Header): number {
  return 2 ** header.clusterBits
}

function has(header: Qcow2Header, feature: bigint): boolean {
  return (header.incompatibleFeatures & feature) !== 0n
}
