import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  copyFileSync,
  createReadStream,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { runCommand } from '../../base/command.ts'
import { convertQcow2 } from '../../images/convert.ts'
import type { ImageStore } from '../../images/image-store.ts'
import type { ImportProgress } from '../../images/import-disk.ts'
import { createSandbox } from '../../images/sandbox.ts'
import { noise, openTestStore, storeFolders, writeSparseFile } from '../support/images.ts'
import { sandboxIdentity } from '../support/sandbox-identity.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

const MiB = 1024 * 1024
const auto = { format: 'auto' } as const

const qemuImg = (...args: string[]) => execFileSync('qemu-img', args, { stdio: 'pipe' })

/** A folder that the tools, who are nobody, can look into. */
function openFolder(): string {
  const folder = temporaryFolder()
  chmodSync(folder, 0o711)
  return folder
}

/** A disk of 64 MiB: compressible and incompressible data, zeros that are written, and holes. */
function sampleDisk(folder: string): string {
  const path = join(folder, 'sample.raw')
  writeSparseFile(path, 64 * MiB, [
    [0, noise(3 * MiB)],
    [8 * MiB + 4096, Buffer.alloc(MiB, 'text that packs well ')],
    [20 * MiB, Buffer.alloc(MiB)],
    [30 * MiB, noise(17 * MiB, 4)],
    [64 * MiB - 4096, noise(4096, 7)],
  ])
  return path
}

/** Makes a qcow2 file of a raw one. */
function qcow2Of(raw: string, name: string, ...options: string[]): string {
  const path = join(raw, '..', name)
  qemuImg('convert', '-f', 'raw', '-O', 'qcow2', ...options, raw, path)
  return path
}

/** Whether any file of the store holds these bytes. */
function holds(folder: string, bytes: string): boolean {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .some(entry => readFileSync(join(entry.parentPath, entry.name)).includes(bytes))
}

/** The sample's data takes room, what is zero does not. */
function expectHoles(path: string): void {
  const allocatedBytes = statSync(path).blocks * 512
  const dataBytes = 21 * MiB + 4096
  expect(allocatedBytes).toBeGreaterThanOrEqual(dataBytes)
  // The file system may need a few blocks to say where the data is.
  expect(allocatedBytes).toBeLessThanOrEqual(dataBytes + 64 * 1024)
}

test('every kind of qcow2 gives the same image as the raw disk, with the same holes', async () => {
  const folder = openFolder()
  const raw = sampleDisk(folder)
  const store = await openTestStore(join(folder, 'images'))
  const { digest } = await store.importImage({ path: raw }, auto)
  expectHoles(store.diskPath(digest))
  await store.remove(digest)
  const files = [
    qcow2Of(raw, 'plain.qcow2'),
    qcow2Of(raw, 'old.qcow2', '-o', 'compat=0.10'),
    qcow2Of(raw, 'packed.qcow2', '-c'),
    qcow2Of(raw, 'zstd.qcow2', '-c', '-o', 'compression_type=zstd'),
    qcow2Of(raw, 'extended.qcow2', '-o', 'extended_l2=on,cluster_size=128k'),
    qcow2Of(raw, 'small.qcow2', '-o', 'cluster_size=512'),
    qcow2Of(raw, 'large.qcow2', '-o', 'cluster_size=2M,preallocation=metadata'),
  ]
  const stages = new Set<string>()
  const onProgress = ({ stage, totalBytes }: ImportProgress) => {
    stages.add(stage)
    // Holes are skipped, not read.
    if (stage === 'hashing') expect(totalBytes).toBeLessThan(24 * MiB)
  }
  for (const path of files) {
    const record = await store.importImage({ path }, { ...auto, onProgress })
    expect(record).toMatchObject({ digest, format: 'qcow2', virtualSizeBytes: 64 * MiB })
    const disk = statSync(store.diskPath(digest))
    expect(disk.uid).toBe(process.getuid?.())
    expectHoles(store.diskPath(digest))
    expect(disk.mode & 0o777).toBe(0o444)
    await store.remove(digest)
  }
  // Nobody but us can change these files: no copy of them was made first.
  expect(stages).not.toContain('receiving')
  const sent = { stream: createReadStream(join(folder, 'zstd.qcow2')) }
  expect(await store.importImage(sent, auto)).toMatchObject({ digest, format: 'qcow2' })
  expect(await storeFolders(join(folder, 'images'))).toMatchObject({ incoming: [] })
})

test('a file that others can change is copied before it is looked at', async () => {
  const folder = openFolder()
  const path = qcow2Of(sampleDisk(folder), 'shared.qcow2')
  chmodSync(path, 0o666)
  const stages: string[] = []
  const store = await openTestStore(join(folder, 'images'))
  const onProgress = ({ stage }: { stage: string }) => stages.push(stage)
  await store.importImage({ path }, { ...auto, onProgress })
  expect(stages).toContain('receiving')
  chmodSync(path, 0o600)
  await store.importImage({ path }, auto)
  expect(store.list()).toHaveLength(1)
})

const secret = 'SECRET-OF-THE-HOST'

test('a file that names another is refused by name, and that other is never read', async () => {
  const folder = temporaryFolder()
  const images = join(folder, 'images')
  const store = await openTestStore(images)
  const hidden = join(folder, 'secret')
  writeFileSync(hidden, secret.padEnd(65536, '.'))
  const at = (name: string) => join(folder, name)
  const json = `json:{"driver":"raw","file":{"driver":"file","filename":"${hidden}"}}`
  qemuImg('create', '-f', 'qcow2', '-b', hidden, '-F', 'raw', at('backing'))
  qemuImg('create', '-f', 'qcow2', '-b', json, '-F', 'raw', at('json'))
  const external = `data_file=${at('data')},data_file_raw=on`
  qemuImg('create', '-f', 'qcow2', '-o', external, at('external'), '64k')
  copyFileSync(hidden, at('data'))
  // The name of the data file with the feature bit taken out: no image of QEMU's own has that.
  copyFileSync(at('external'), at('leftover'))
  patch(at('leftover'), 72, Buffer.alloc(8))
  qemuImg('create', '-f', 'qcow2', at('snapshots'), '1M')
  qemuImg('snapshot', '-c', 'one', at('snapshots'))
  writeFileSync(at('vmdk'), `# Disk DescriptorFile\nRW 128 FLAT "${hidden}" 0\n`.padEnd(512))
  const refusals = { backing: 'backingFile', json: 'backingFile', external: 'externalDataFile' }
  const all = { ...refusals, leftover: 'externalDataFile', snapshots: 'snapshots', vmdk: 'vmdk' }
  for (const [name, refusal] of Object.entries(all)) {
    for (const source of [{ path: at(name) }, { stream: createReadStream(at(name)) }]) {
      await expect(store.importImage(source, auto)).rejects.toMatchObject({
        code: 'imageRefused',
        values: { refusal },
      })
    }
  }
  expect(holds(images, secret)).toBe(false)
})

function patch(path: string, offset: number, bytes: Buffer): void {
  const file = openSync(path, 'r+')
  writeSync(file, bytes, 0, bytes.length, offset)
}

test('files that are cut short, damaged, encrypted or absurd are refused by name', async () => {
  const folder = temporaryFolder()
  const store = await openTestStore(join(folder, 'images'))
  const plain = qcow2Of(sampleDisk(folder), 'plain.qcow2')
  const variant = (name: string, change: (path: string) => void) => {
    const path = join(folder, name)
    copyFileSync(plain, path)
    change(path)
    return path
  }
  const { size } = statSync(plain)
  qemuImg('create', '-f', 'qcow2', join(folder, 'huge'), '1P')
  const cases: [string, string][] = [
    ['damaged', variant('cut', path => truncateSync(path, size - 200_000))],
    ['truncated', variant('stump', path => truncateSync(path, 100_000))],
    ['truncated', variant('head', path => truncateSync(path, 90))],
    ['damaged', variant('twice', path => shareClusters(path))],
    ['dirty', variant('dirty', path => patch(path, 79, Buffer.of(1)))],
    ['corrupt', variant('corrupt', path => patch(path, 79, Buffer.of(2)))],
    ['unknownFeature', variant('future', path => patch(path, 72, Buffer.of(0x80)))],
    ['tooLarge', join(folder, 'huge')],
    ['encrypted', variant('encrypted', path => patch(path, 35, Buffer.of(2)))],
  ]
  for (const [refusal, path] of cases) {
    await expect(store.importImage({ path }, auto)).rejects.toMatchObject({
      code: 'imageRefused',
      values: { refusal },
    })
  }
  expect(store.list()).toEqual([])
})

/** Lets the second cluster of the disk be the first one: a way to make much out of little. */
function shareClusters(path: string): void {
  const bytes = readFileSync(path)
  const l1 = Number(bytes.readBigUInt64BE(40))
  const l2 = Number(bytes.readBigUInt64BE(l1) & 0x00fffffffffffe00n)
  patch(path, l2 + 8, bytes.subarray(l2, l2 + 8))
}

test('a raw disk on which a guest wrote a qcow2 header stays the bytes that it is', async () => {
  const folder = temporaryFolder()
  const hidden = join(folder, 'secret')
  writeFileSync(hidden, secret.padEnd(65536, '.'))
  const path = join(folder, 'written-by-a-guest')
  qemuImg('create', '-f', 'qcow2', '-b', hidden, '-F', 'raw', path)
  truncateSync(path, MiB)
  const store = await openTestStore(join(folder, 'images'))
  const record = await store.importImage({ path }, { format: 'raw' })
  expect(record).toMatchObject({ format: 'raw', virtualSizeBytes: MiB })
  expect(readFileSync(store.diskPath(record.digest)).equals(readFileSync(path))).toBe(true)
})

test('the tools run without privileges, environment of ours, or room to do harm', async () => {
  process.env['MACFLEET_TEST_SECRET'] = secret
  const sandbox = createSandbox(runCommand, sandboxIdentity)
  const limits = { timeoutMs: 10_000, fileBytes: 1024 }
  const status = (await sandbox('cat', ['/proc/self/status'], limits)).stdout
  if (sandboxIdentity) expect(status).toMatch(/Uid:\t65534\t65534\t65534\t65534/)
  if (sandboxIdentity) expect(status).toMatch(/CapBnd:\t0000000000000000/)
  expect(status).toMatch(/CapEff:\t0000000000000000/)
  expect(status).toMatch(/NoNewPrivs:\t1/)
  expect((await sandbox('env', [], limits)).stdout).not.toContain(secret)
  const path = join(temporaryFolder(), 'written')
  writeFileSync(path, '')
  chmodSync(path, 0o666)
  chmodSync(join(path, '..'), 0o777)
  expect((await sandbox('dd', ['if=/dev/zero', `of=${path}`], limits)).code).not.toBe(0)
  expect(statSync(path).size).toBeLessThanOrEqual(1024)
  await expect(sandbox('no-such-tool', [], limits)).rejects.toMatchObject({
    code: 'commandMissing',
  })
  await expect(sandbox('sleep', ['60'], { timeoutMs: 200, fileBytes: 0 })).rejects.toMatchObject({
    code: 'commandTimedOut',
  })
})

test('killed at any moment, a store lists whole images only and gives the space back', async () => {
  const folder = temporaryFolder()
  const images = join(folder, 'images')
  const raw = sampleDisk(folder)
  const packed = qcow2Of(raw, 'packed.qcow2', '-c')
  const other = join(folder, 'other.raw')
  writeSparseFile(other, 16 * MiB, [[0, noise(8 * MiB, 5)]])
  for (let round = 0; round < 6; round++) {
    await importUntilKilled([images, raw, other, packed], 50 * round)
    const store = await openTestStore(images)
    await expectWhole(store, images)
    await store.close()
  }
})

/** Starts importing in another process and kills it so long after its store is open. */
async function importUntilKilled(args: string[], delayMs: number): Promise<void> {
  const child = spawn(process.execPath, [
    join(import.meta.dirname, '../support/import-child.ts'),
    ...args,
  ])
  onTestFinished(() => void child.kill('SIGKILL'))
  const ended = once(child, 'exit')
  await once(child.stdout, 'data')
  // The moment of the kill is what is tried here, not something that is waited for.
  setTimeout(() => child.kill('SIGKILL'), delayMs)
  await ended
}

async function expectWhole(store: ImageStore, folder: string): Promise<void> {
  const { images, incoming } = await storeFolders(folder)
  expect(incoming).toEqual([])
  expect(
    store
      .list()
      .map(({ digest }) => digest.slice(7))
      .sort(),
  ).toEqual(images.sort())
  let listedBytes = 0
  for (const { digest, allocatedBytes } of store.list()) {
    expect((await store.verify(digest)).bad).toEqual([])
    listedBytes += allocatedBytes
  }
  expect((await store.usedBytes()) - listedBytes).toBeLessThan(MiB)
}

const asRoot = test.runIf(process.getuid?.() === 0)

/** A disk of its own, that is full soon; it goes when the test ends. */
function smallDisk(folder: string, sizeMiB: number): string {
  const path = join(folder, 'small')
  mkdirSync(path)
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${sizeMiB}m`, 'tmpfs', path])
  onTestFinished(() => void execFileSync('umount', ['-l', path]))
  return path
}

asRoot('an import that would fill the disk is refused, and leaves nothing', async () => {
  const folder = openFolder()
  const store = await openTestStore(join(smallDisk(folder, 12), 'images'))
  const fits = join(folder, 'fits.raw')
  writeSparseFile(fits, 4 * MiB, [[0, noise(4 * MiB)]])
  const { digest } = await store.importImage({ path: fits }, auto)
  const large = join(folder, 'large.raw')
  writeSparseFile(large, 32 * MiB, [[0, noise(32 * MiB, 2)]])
  const packed = qcow2Of(large, 'large.qcow2')
  const before = await store.usedBytes()
  const sources = [
    { path: large },
    { path: packed },
    { stream: createReadStream(large) },
    { stream: createReadStream(packed) },
  ]
  for (const source of sources) {
    // Of a stream nobody knows how much will come: room is made for it as long as there is any.
    if ('stream' in source) await store.pin(digest)
    await expect(store.importImage(source, auto)).rejects.toMatchObject({ code: 'diskFull' })
    expect(await store.usedBytes()).toBe(before)
  }
  expect((await store.verify(digest)).bad).toEqual([])
  await store.use(digest, { uid: '1', name: 'a/b' })
})

asRoot('a disk that others fill during an import ends the import alone', async () => {
  const folder = openFolder()
  const disk = smallDisk(folder, 80)
  const images = join(disk, 'images')
  const store = await openTestStore(images)
  const before = await store.usedBytes()
  for (const start of [Buffer.alloc(MiB), readFileSync(qcow2Of(sampleDisk(folder), 'start'))]) {
    const filler = join(disk, 'filler')
    const stream = async function* () {
      yield start
      writeFileSync(filler, Buffer.alloc(60 * MiB))
      for (let part = 0; part < 40; part++) yield noise(MiB, part)
    }
    await expect(store.importImage({ stream: stream() }, auto)).rejects.toMatchObject({
      code: 'diskFull',
    })
    rmSync(filler)
    expect(await store.usedBytes()).toBe(before)
  }
  const target = { name: 'disk.raw', folder: disk, sizeBytes: 128 * MiB }
  writeFileSync(join(disk, target.name), '')
  truncateSync(join(disk, target.name), target.sizeBytes)
  chmodSync(join(disk, target.name), 0o666)
  const large = join(folder, 'large.raw')
  writeSparseFile(large, 128 * MiB, [[0, noise(128 * MiB)]])
  const source = { workingFolder: disk, name: qcow2Of(large, 'large.qcow2') }
  const tools = { sandbox: createSandbox(runCommand, sandboxIdentity), qemuImg: 'qemu-img' }
  await expect(convertQcow2(tools, source, target, 128 * MiB)).rejects.toMatchObject({
    code: 'diskFull',
  })
})
