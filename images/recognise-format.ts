/** What the first bytes of a file say that it is. */
export type FileFormat = 'raw' | 'qcow2' | OtherFormat

/** Formats that are known well enough to be refused by name. */
export type OtherFormat =
  | 'qcow1'
  | 'vmdk'
  | 'vhdx'
  | 'vhd'
  | 'vdi'
  | 'qed'
  | 'parallels'
  | 'gzip'
  | 'xz'
  | 'zstd'
  | 'bzip2'
  | 'lz4'
  | 'zip'
  | 'sevenZip'
  | 'tar'
  | 'xar'
  | 'androidSparse'
  | 'iso'

interface Signature {
  format: FileFormat
  offset: number
  bytes: Buffer
}

const text = (format: FileFormat, offset: number, bytes: string): Signature => ({
  format,
  offset,
  bytes: Buffer.from(bytes, 'latin1'),
})

const signatures: readonly Signature[] = [
  text('qcow2', 0, 'QFI\xfb'),
  text('vmdk', 0, 'KDMV'),
  text('vmdk', 0, 'COWD'),
  text('vmdk', 0, '# Disk DescriptorFile'),
  text('vhdx', 0, 'vhdxfile'),
  text('vhd', 0, 'conectix'),
  text('vdi', 0x40, '\x7f\x10\xda\xbe'),
  text('qed', 0, 'QED\0'),
  text('parallels', 0, 'WithoutFreeSpace'),
  text('parallels', 0, 'WithouFreSpacExt'),
  text('gzip', 0, '\x1f\x8b\x08'),
  text('xz', 0, '\xfd7zXZ\0'),
  text('zstd', 0, '\x28\xb5\x2f\xfd'),
  text('bzip2', 0, 'BZh'),
  text('lz4', 0, '\x04\x22\x4d\x18'),
  text('zip', 0, 'PK\x03\x04'),
  text('sevenZip', 0, '7z\xbc\xaf\x27\x1c'),
  text('xar', 0, 'xar!'),
  text('androidSparse', 0, '\x3a\xff\x26\xed'),
  text('tar', 257, 'ustar'),
  text('iso', 0x8001, 'CD001'),
]

/** Bytes of a file's beginning that `recogniseFormat` wants to see, if there are so many. */
export const recognisedBytes = 0x8001 + 5

/**
 * Names the format of a file by its first bytes. Only for files that come from outside, where the
 * user asked for it (`auto`): a disk that a guest wrote is never looked at this way. Whatever is
 * not known is raw. A CD image that has a boot sector too (as installers for USB sticks do) is a
 * disk.
 */
export function recogniseFormat(head: Buffer): FileFormat {
  const found = signatures.find(({ offset, bytes }) =>
    head.subarray(offset, offset + bytes.length).equals(bytes),
  )
  if (found === undefined) return 'raw'
  if (found.format === 'qcow2') return head.subarray(4, 8).equals(qcow1Version) ? 'qcow1' : 'qcow2'
  if (found.format === 'iso') return hasBootSector(head) ? 'raw' : 'iso'
  return found.format
}

const qcow1Version = Buffer.of(0, 0, 0, 1)

function hasBootSector(head: Buffer): boolean {
  return head[510] === 0x55 && head[511] === 0xaa
}

/** What is said of a format that is not taken: what it is and what to do about it. */
export function describeFormat(format: OtherFormat): { detail: string; advice: string } {
  const name = names[format]
  if (format === 'iso') {
    return {
      detail:
        'it is a CD image without a boot sector, and not a disk that a machine can start from',
      advice: 'State the format raw to import its bytes all the same',
    }
  }
  if (packed.includes(format)) {
    return { detail: `it is packed (${name})`, advice: 'Unpack it and import what was inside' }
  }
  return {
    detail: `it is a disk in the format ${name}`,
    advice: 'Convert it to qcow2 or raw first, for example with `qemu-img convert`',
  }
}

const packed: readonly OtherFormat[] = [
  'gzip',
  'xz',
  'zstd',
  'bzip2',
  'lz4',
  'zip',
  'sevenZip',
  'tar',
  'xar',
]

const names: Record<OtherFormat, string> = {
  qcow1: 'qcow version 1',
  vmdk: 'VMDK',
  vhdx: 'VHDX',
  vhd: 'VHD',
  vdi: 'VDI',
  qed: 'QED',
  parallels: 'Parallels',
  gzip: 'gzip',
  xz: 'xz',
  zstd: 'zstd',
  bzip2: 'bzip2',
  lz4: 'lz4',
  zip: 'zip',
  sevenZip: '7-Zip',
  tar: 'tar',
  xar: 'xar',
  androidSparse: 'Android sparse',
  iso: 'ISO 9660',
}
