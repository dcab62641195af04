import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type Inspection, inspectHeader, type StatedFormat } from './inspect-header.ts'

const clusterBytes = 65536
const fileBytes = 8 * clusterBytes
const diskBytes = 2 ** 40
const gibibyte = 2n ** 30n

/** The header that QEMU gives a small disk of 1 GiB, in a file of 8 clusters. */
function sampleHeader(version = 3): Buffer {
  const head = Buffer.alloc(clusterBytes)
  head.write('QFI\xfb', 'latin1')
  head.writeUInt32BE(version, 4)
  head.writeUInt32BE(16, 20)
  head.writeBigUInt64BE(gibibyte, 24)
  head.writeUInt32BE(2, 36)
  head.writeBigUInt64BE(BigInt(3 * clusterBytes), 40)
  head.writeBigUInt64BE(BigInt(clusterBytes), 48)
  head.writeUInt32BE(1, 56)
  if (version === 2) return head
  head.writeUInt32BE(4, 96)
  head.writeUInt32BE(112, 100)
  return head
}

const inspect = (head: Buffer, size = fileBytes, format: StatedFormat = 'auto') =>
  inspectHeader(head, { format, fileBytes: size, diskBytes })

const nameOf = (inspection: Inspection) =>
  inspection.format === 'refused' ? inspection.refusal : inspection.format

const changed = (change: (head: Buffer) => void, version = 3) => {
  const head = sampleHeader(version)
  change(head)
  return nameOf(inspect(head))
}

const feature = (bit: number) => (head: Buffer) => head.writeBigUInt64BE(1n << BigInt(bit), 72)

/** Header extensions, one after another, from byte 112 on. */
const extensions =
  (...list: { type: number; data?: Buffer; length?: number }[]) =>
  (head: Buffer) => {
    let at = 112
    for (const { type, data = Buffer.alloc(0), length = data.length } of list) {
      head.writeUInt32BE(type, at)
      head.writeUInt32BE(length, at + 4)
      data.copy(head, at + 8)
      at += 8 + Math.ceil(data.length / 8) * 8
    }
  }

test('sound headers are read', () => {
  expect(inspect(sampleHeader())).toEqual({
    format: 'qcow2',
    virtualSizeBytes: 2 ** 30,
    version: 3,
    clusterBytes,
    compression: 'zlib',
    extendedL2: false,
  })
  expect(inspect(sampleHeader(2))).toMatchObject({ format: 'qcow2', version: 2 })
  const zstd = sampleHeader()
  feature(3)(zstd)
  zstd[104] = 1
  expect(inspect(zstd)).toMatchObject({ compression: 'zstd' })
  const extended = sampleHeader()
  feature(4)(extended)
  extended.writeUInt32BE(4, 36)
  expect(inspect(extended)).toMatchObject({ extendedL2: true })
})

test.each<[string, (head: Buffer) => void]>([
  ['backingFile', head => head.writeBigUInt64BE(1024n, 8)],
  ['externalDataFile', feature(2)],
  ['externalDataFile', extensions({ type: 0x44415441, data: Buffer.from('/etc/shadow') })],
  ['snapshots', head => head.writeUInt32BE(1, 60)],
  ['encrypted', head => head.writeUInt32BE(1, 32)],
  ['encrypted', head => head.writeUInt32BE(2, 32)],
  ['encrypted', extensions({ type: 0x0537be77, data: Buffer.alloc(16) })],
  ['unknownFeature', feature(5)],
  ['unknownFeature', feature(63)],
  ['dirty', feature(0)],
  ['corrupt', feature(1)],
  ['unknownVersion', head => head.writeUInt32BE(4, 4)],
  ['unknownVersion', head => head.writeUInt32BE(0, 4)],
  ['qcow1', head => head.writeUInt32BE(1, 4)],
  ['clusterSize', head => head.writeUInt32BE(8, 20)],
  ['clusterSize', head => head.writeUInt32BE(22, 20)],
  ['clusterSize', head => head.writeUInt32BE(0xffffffff, 20)],
  ['refcountOrder', head => head.writeUInt32BE(7, 96)],
  ['headerLength', head => head.writeUInt32BE(96, 100)],
  ['headerLength', head => head.writeUInt32BE(109, 100)],
  ['headerLength', head => head.writeUInt32BE(0xfffffff8, 100)],
  ['noSize', head => head.writeBigUInt64BE(0n, 24)],
  ['tooLarge', head => head.writeBigUInt64BE(2n ** 50n, 24)],
  ['tooLarge', head => head.writeBigUInt64BE(2n ** 64n - 512n, 24)],
  ['sizeNotWholeSectors', head => head.writeBigUInt64BE(gibibyte + 1n, 24)],
  ['tableOutOfRange', head => head.writeUInt32BE(1, 36)],
  ['tableOutOfRange', head => head.writeUInt32BE(0xffffffff, 36)],
  ['tableOutOfRange', head => head.writeBigUInt64BE(512n, 40)],
  ['tableOutOfRange', head => head.writeBigUInt64BE(0n, 48)],
  ['tableOutOfRange', head => head.writeUInt32BE(0, 56)],
  ['tableOutOfRange', head => head.writeUInt32BE(0x10000, 56)],
  ['truncated', head => head.writeBigUInt64BE(BigInt(fileBytes), 40)],
  ['truncated', head => head.writeBigUInt64BE(BigInt(fileBytes), 48)],
  ['truncated', head => head.writeBigUInt64BE(2n ** 64n - 65536n, 40)],
  ['compressionType', feature(3)],
  ['compressionType', head => head.writeUInt8(1, 104)],
  ['extensionOutOfRange', extensions({ type: 7, length: 0xffffffff })],
  ['extensionOutOfRange', extensions({ type: 7 }, { type: 7 })],
  [
    'extensionOutOfRange',
    extensions(...Array.from({ length: 100 }, (_, index) => ({ type: index + 1 }))),
  ],
  ['bitmapsOutOfRange', extensions({ type: 0x23852875, data: Buffer.alloc(8) })],
  ['bitmapsOutOfRange', extensions({ type: 0x23852875, data: Buffer.alloc(24, 0xff) })],
])('%s', (name, change) => {
  expect(changed(change)).toBe(name)
})

test('version 2 has a backing file, encryption and snapshots too', () => {
  expect(changed(head => head.writeBigUInt64BE(1024n, 8), 2)).toBe('backingFile')
  expect(changed(head => head.writeUInt32BE(1, 32), 2)).toBe('encrypted')
  expect(changed(head => head.writeUInt32BE(3, 60), 2)).toBe('snapshots')
})

test('a file that ends within its header or its tables is refused', () => {
  for (const size of [8, 71, 103]) {
    expect(nameOf(inspect(sampleHeader().subarray(0, size), size))).toBe('truncated')
  }
  expect(nameOf(inspect(sampleHeader(), 3 * clusterBytes))).toBe('truncated')
})

test.each<[string, number, string]>([
  ['vmdk', 0, 'KDMV'],
  ['vmdk', 0, '# Disk DescriptorFile\nRW 1 FLAT "/etc/shadow" 0'],
  ['vhdx', 0, 'vhdxfile'],
  ['vhd', 0, 'conectix'],
  ['vdi', 0x40, '\x7f\x10\xda\xbe'],
  ['qed', 0, 'QED\0'],
  ['gzip', 0, '\x1f\x8b\x08\0'],
  ['xz', 0, '\xfd7zXZ\0'],
  ['zstd', 0, '\x28\xb5\x2f\xfd'],
  ['zip', 0, 'PK\x03\x04'],
  ['tar', 257, 'ustar'],
  ['iso', 0x8001, 'CD001'],
])('%s is refused by name, unless it is stated to be raw', (name, offset, bytes) => {
  const head = Buffer.alloc(clusterBytes)
  head.write(bytes, offset, 'latin1')
  expect(nameOf(inspect(head))).toBe(name)
  expect(nameOf(inspect(head, fileBytes, 'qcow2'))).toBe('notQcow2')
  expect(nameOf(inspect(head, fileBytes, 'raw'))).toBe('raw')
})

test('a CD image with a boot sector is a disk', () => {
  const head = Buffer.alloc(clusterBytes)
  head.write('CD001', 0x8001)
  head.writeUInt16BE(0x55aa, 510)
  expect(nameOf(inspect(head))).toBe('raw')
})

test('a stated raw file is never looked into, only measured', () => {
  expect(inspect(sampleHeader(), fileBytes, 'raw')).toEqual({
    format: 'raw',
    virtualSizeBytes: fileBytes,
  })
  expect(nameOf(inspect(Buffer.alloc(0), 0, 'raw'))).toBe('empty')
  expect(nameOf(inspect(Buffer.alloc(513), 513))).toBe('sizeNotWholeSectors')
  expect(nameOf(inspect(Buffer.alloc(512), diskBytes + 512))).toBe('tooLarge')
})

test('whatever is changed about a header, it is judged, and what passes is within bounds', () => {
  const change = fc.tuple(fc.nat(clusterBytes - 1), fc.uint8Array({ minLength: 1, maxLength: 8 }))
  const early = fc.tuple(fc.nat(200), fc.uint8Array({ minLength: 1, maxLength: 8 }))
  fc.assert(
    fc.property(
      fc.constantFrom(2, 3),
      fc.array(fc.oneof(early, early, change), { minLength: 1, maxLength: 6 }),
      fc.oneof(fc.nat(fileBytes), fc.constant(fileBytes)),
      (version, changes, size) => {
        const head = sampleHeader(version)
        for (const [at, bytes] of changes) head.set(bytes.subarray(0, clusterBytes - at), at)
        const result = inspect(head.subarray(0, size), size, 'qcow2')
        if (result.format === 'refused') {
          expect(result.detail).not.toBe('')
          return
        }
        expect(result.format).toBe('qcow2')
        expect(result.virtualSizeBytes).toBeGreaterThan(0)
        expect(result.virtualSizeBytes).toBeLessThanOrEqual(diskBytes)
      },
    ),
    { numRuns: 2000 },
  )
})

test('any bytes at all are judged', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.boolean(), (bytes, magic) => {
      const head = Buffer.from(bytes)
      if (magic) head.write('QFI\xfb', 'latin1')
      expect(nameOf(inspect(head, head.length))).toBeTypeOf('string')
    }),
  )
})
