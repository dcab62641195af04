import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { defaultLimits } from '../../base/limits.ts'
import { createLayerBuilder } from '../layer-builder.ts'
import { chunkBytes, decodeLayerIndex, encodeLayerIndex, type LayerIndex } from '../layer-index.ts'
import { openCommitLayer } from './commit-layer.ts'

const diskBytes = 8 * chunkBytes

let folder: string
const files: FileHandle[] = []
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'commit-'))
})
afterEach(async () => {
  for (const file of files.splice(0)) await file.close()
  rmSync(folder, { recursive: true, force: true })
})

async function openFile(name: string): Promise<FileHandle> {
  const file = await open(join(folder, name), 'r')
  files.push(file)
  return file
}

/** An overlay as QEMU writes it, with nothing in its header, over a raw parent. */
function makeOverlay(options: string, parent: Buffer, commands: string[], grownBytes = 0): void {
  writeFileSync(join(folder, 'parent.raw'), parent)
  const sizeBytes = String(parent.length + grownBytes)
  const create = ['create', '-q', '-f', 'qcow2', '-o', options, 'overlay.qcow2', sizeBytes]
  execFileSync('qemu-img', create, { cwd: folder })
  const graph = {
    driver: 'qcow2',
    discard: 'unmap',
    file: { driver: 'file', filename: 'overlay.qcow2', discard: 'unmap' },
    backing: { driver: 'raw', file: { driver: 'file', filename: 'parent.raw' } },
  }
  const input = `${commands.join('\n')}\n`
  const stdio = ['pipe', 'ignore', 'inherit'] as const
  execFileSync('qemu-io', [`json:${JSON.stringify(graph)}`], {
    cwd: folder,
    input,
    stdio: [...stdio],
  })
  const convert = ['convert', '-O', 'raw', `json:${JSON.stringify(graph)}`, 'disk.raw']
  execFileSync('qemu-img', convert, { cwd: folder })
}

function importedIndex(disk: Buffer): LayerIndex {
  const builder = createLayerBuilder()
  for (let at = 0; at < disk.length; at += chunkBytes) {
    builder.addWindow(at, disk.subarray(at, Math.min(at + chunkBytes, disk.length)))
  }
  return builder.finish(disk.length)
}

async function commit(parent: Buffer, signal = new AbortController().signal) {
  return await openCommitLayer({
    snapshot: await openFile('overlay.qcow2'),
    parent: {
      disk: await openFile('parent.raw'),
      layers: [encodeLayerIndex(importedIndex(parent))],
      virtualSizeBytes: parent.length,
    },
    limits: defaultLimits,
    onProgress: () => {},
    signal,
  })
}

/** What is seen of the layer over its parent, and the layer. */
async function composed(parent: Buffer): Promise<{ seen: Buffer; layer: LayerIndex }> {
  const made = await commit(parent)
  try {
    const layer = decodeLayerIndex(made.encoded, defaultLimits)
    const seen = Buffer.alloc(layer.virtualSizeBytes)
    parent.copy(seen)
    for (const { offsetBytes, lengthBytes } of layer.zeros) {
      seen.fill(0, offsetBytes, offsetBytes + lengthBytes)
    }
    for (const [number, { digest, extents }] of layer.chunks.entries()) {
      const bytes = await made.readChunk(number)
      expect(`sha256:${createHash('sha256').update(bytes).digest('hex')}`).toBe(digest)
      let from = 0
      for (const { offsetBytes, lengthBytes } of extents) {
        bytes.copy(seen, offsetBytes, from, from + lengthBytes)
        from += lengthBytes
      }
    }
    return { seen, layer }
  } finally {
    await made.close()
  }
}

/** Half of it data, so that zeros over data and over nothing are both met. */
function makeParent(): Buffer {
  return Buffer.concat([randomBytes(diskBytes / 2), Buffer.alloc(diskBytes / 2)])
}

const changes = [
  'write -P 1 4k 4k',
  'write -P 2 60k 8k',
  'write -P 3 1M 1M',
  'write -z 200k 4k',
  'discard 2M 1M',
  'write -z 3204k 4k',
  'write -P 0 300k 8k',
  'write -P 4 6M 12k',
  'discard 7M 512k',
  'write -z -u 3584k 128k',
]

test.each([
  ['cluster_size=128k,extended_l2=on', 4 + 1024 + 4 + 8 + 128],
  ['cluster_size=64k', 4 + 1024 + 4 + 8 + 128],
  // QEMU passes over a discard of less than a cluster.
  ['cluster_size=2M,extended_l2=on', 4 + 4 + 8 + 128],
])('an overlay (%s) becomes the layer that makes its disk', async (options, zeroKib) => {
  const parent = makeParent()
  makeOverlay(options, parent, changes)
  const { seen, layer } = await composed(parent)
  expect(seen.equals(readFileSync(join(folder, 'disk.raw')))).toBe(true)
  // 4k, 8k, 1M and 12k of data; what was zeroed where nothing was is not in it.
  const data = layer.chunks.flatMap(({ extents }) => extents)
  expect(data.reduce((sum, extent) => sum + extent.lengthBytes, 0)).toBe(1048 * 1024)
  const zeros = layer.zeros.reduce((sum, extent) => sum + extent.lengthBytes, 0)
  expect(zeros).toBe(zeroKib * 1024)
})

test('a disk that is larger than its image keeps its size', async () => {
  const parent = makeParent()
  const last = `write -P 5 ${diskBytes + chunkBytes - 4096} 4k`
  makeOverlay('cluster_size=128k,extended_l2=on', parent, [last], chunkBytes)
  const { seen } = await composed(parent)
  expect(seen.equals(readFileSync(join(folder, 'disk.raw')))).toBe(true)
})

test('the same disk is the same layer, however its overlay came to be', async () => {
  const parent = makeParent()
  const encoded: Buffer[] = []
  for (const commands of [changes, [...changes, 'write -P 9 5M 128k', 'discard 5M 128k']]) {
    makeOverlay('cluster_size=128k,extended_l2=on', parent, commands)
    const made = await commit(parent)
    encoded.push(made.encoded)
    await made.close()
    for (const file of files.splice(0)) await file.close()
  }
  expect(encoded[0]?.equals(encoded[1] ?? Buffer.alloc(0))).toBe(true)
})

/** Changes the overlay as somebody would who has taken over a QEMU. */
function forge(change: (file: Buffer, table: number) => void): void {
  const path = join(folder, 'overlay.qcow2')
  const file = readFileSync(path)
  const l1 = Number(file.readBigUInt64BE(40))
  change(file, Number(file.readBigUInt64BE(l1) & 0x00fffffffffffe00n))
  writeFileSync(path, file)
}

test('no file that a header or a table names is read but its own', async () => {
  const parent = makeParent()
  const forgeries: [string, RegExp, (file: Buffer, table: number) => void][] = [
    ['a backing file', /backing file/, file => file.writeBigUInt64BE(512n, 8)],
    ['an external data file', /another file/, file => file.writeUInt8(file.readUInt8(79) | 4, 79)],
    ['a compressed cluster', /compressed/, (file, table) => file.writeUInt8(0x40, table)],
    ['a cluster beyond the end', /end of the file/, (file, table) => file.writeUInt8(1, table + 2)],
    ['a crooked cluster', /border/, (file, table) => file.writeUInt8(2, table + 6)],
    ['data and zero at once', /both/, (file, table) => file.fill(0xff, table + 8, table + 16)],
    ['a table beyond the end', /end of the file/, file => file.writeUInt8(1, firstTable(file) + 2)],
  ]
  makeOverlay('cluster_size=128k,extended_l2=on', parent, ['write -P 1 0 128k'])
  const honest = readFileSync(join(folder, 'overlay.qcow2'))
  for (const [, message, change] of forgeries) {
    writeFileSync(join(folder, 'overlay.qcow2'), honest)
    forge(change)
    await expect(commit(parent)).rejects.toThrow(message)
  }
})

function firstTable(file: Buffer): number {
  return Number(file.readBigUInt64BE(40))
}

test('more data than the file has is a lie', async () => {
  const parent = makeParent()
  makeOverlay('cluster_size=128k,extended_l2=on', parent, ['write -P 1 0 128k'])
  forge((file, table) => {
    for (let cluster = 1; cluster < diskBytes / (128 * 1024); cluster++) {
      file.copy(file, table + cluster * 16, table, table + 16)
    }
  })
  await expect(commit(parent)).rejects.toThrow(/more data than it has/)
})

test('a commit ends when nobody waits for it any more', async () => {
  const parent = makeParent()
  makeOverlay('cluster_size=128k,extended_l2=on', parent, changes)
  const ended = new AbortController()
  const made = commit(parent, ended.signal)
  ended.abort(new Error('gone'))
  await expect(made).rejects.toThrow('gone')
})
