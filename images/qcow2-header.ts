/** The fields of a qcow2 header as they stand, unjudged (QEMU, docs/interop/qcow2.txt). */
export interface Qcow2Header {
  version: number
  backingFileOffset: bigint
  clusterBits: number
  sizeBytes: bigint
  cryptMethod: number
  l1Entries: number
  l1TableOffset: bigint
  refcountTableOffset: bigint
  refcountTableClusters: number
  snapshotCount: number
  incompatibleFeatures: bigint
  refcountOrder: number
  headerBytes: number
  /** 0 is zlib, 1 is zstd. */
  compressionType: number
}

const version2Bytes = 72
const version3Bytes = 104

/**
 * Reads the header; undefined when there are too few bytes for it. Version 2 gets its fixed
 * values.
 */
export function readQcow2Header(head: Buffer): Qcow2Header | undefined {
  if (head.length < version2Bytes) return undefined
  const version = head.readUInt32BE(4)
  if (version > 2 && head.length < version3Bytes) return undefined
  return {
    version,
    backingFileOffset: head.readBigUInt64BE(8),
    clusterBits: head.readUInt32BE(20),
    sizeBytes: head.readBigUInt64BE(24),
    cryptMethod: head.readUInt32BE(32),
    l1Entries: head.readUInt32BE(36),
    l1TableOffset: head.readBigUInt64BE(40),
    refcountTableOffset: head.readBigUInt64BE(48),
    refcountTableClusters: head.readUInt32BE(56),
    snapshotCount: head.readUInt32BE(60),
    ...(version > 2 ? readVersion3(head) : version2Values),
  }
}

const version2Values = {
  incompatibleFeatures: 0n,
  refcountOrder: 4,
  headerBytes: version2Bytes,
  compressionType: 0,
}

function readVersion3(head: Buffer) {
  const headerBytes = head.readUInt32BE(100)
  return {
    incompatibleFeatures: head.readBigUInt64BE(72),
    refcountOrder: head.readUInt32BE(96),
    headerBytes,
    compressionType: headerBytes > version3Bytes ? (head[version3Bytes] ?? 0) : 0,
  }
}
