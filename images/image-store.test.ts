import { execFileSync } from 'node:child_process'
import {
  createReadStream,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { chmod, open, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Level } from 'level'
import { expect, onTestFinished, test } from 'vitest'
import { isFailure } from '../base/errors.ts'
import { defaultLimits } from '../base/limits.ts'
import { silentLog } from '../base/log.ts'
import {
  digestOfBytes,
  noise,
  openTestStore,
  storeFolders,
  writeSparseFile,
} from '../test/support/images.ts'
import { temporaryFolder } from '../test/support/temporary-folder.ts'
import { openChunkIndex } from './chunk-index.ts'
import { createLayerBuilder } from './layer-builder.ts'
import { decodeLayerIndex } from './layer-index.ts'

const MiB = 1024 * 1024
const raw = { format: 'raw' } as const

/** A disk of 40 MiB with data at its start, across a border of chunks, and at its end. */
function sampleDisk(folder: string, name = 'sample.raw', seed = 1): string {
  const path = join(folder, name)
  writeSparseFile(path, 40 * MiB, [
    [0, noise(2 * MiB, seed)],
    [5 * MiB - 8192, noise(16384, 2)],
    [40 * MiB - 512, noise(512, 3)],
  ])
  return path
}

/** The digest of the first chunk of such a disk. */
function firstChunk(seed: number): string {
  const builder = createLayerBuilder()
  for (const at of [0, MiB]) builder.addWindow(at, noise(2 * MiB, seed).subarray(at, at + MiB))
  return builder.finish(2 * MiB).chunks[0]?.digest ?? ''
}

async function* streamOf(...parts: Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* parts
}

const failing = async (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => 'it did not fail',
    (error: unknown) => error,
  )

test('a raw file becomes a sparse, read-only disk with the same bytes', async () => {
  const folder = temporaryFolder()
  const path = sampleDisk(folder)
  const store = await openTestStore(join(folder, 'images'))
  const stages = new Set<string>()
  const record = await store.importImage(
    { path },
    { format: 'auto', arch: 'aarch64', onProgress: ({ stage }) => stages.add(stage) },
  )
  const disk = store.diskPath(record.digest)
  expect(readFileSync(disk).equals(readFileSync(path))).toBe(true)
  expect(statSync(disk).mode & 0o777).toBe(0o444)
  const dataBytes = 2 * MiB + 16384 + 4096
  expect(statSync(disk).blocks * 512).toBeGreaterThanOrEqual(dataBytes)
  // The file system may need a few blocks to say where the data is.
  expect(statSync(disk).blocks * 512).toBeLessThanOrEqual(dataBytes + 64 * 1024)
  expect(record).toMatchObject({
    virtualSizeBytes: 40 * MiB,
    dataBytes: 2 * MiB + 16384 + 4096,
    chunkCount: 5,
    format: 'raw',
    arch: 'aarch64',
    machine: 'linux',
    firmware: 'bios',
    pinned: false,
  })
  expect([...stages]).toContain('inspecting')
  expect(store.list()).toEqual([record])
  expect(store.inspect(record.digest)).toMatchObject({ extentCount: 5, users: [], diskPath: disk })
  const du = execFileSync('du', ['-s', '--block-size=1', join(folder, 'images')], {
    encoding: 'utf8',
  })
  expect(await store.usedBytes()).toBe(Number(du.split('\t')[0]))
})

test('the same content is one image, however it comes', async () => {
  const folder = temporaryFolder()
  const path = sampleDisk(folder)
  const images = join(folder, 'images')
  const store = await openTestStore(images)
  const stream = (highWaterMark: number) => createReadStream(path, { highWaterMark })
  const digests = await Promise.all([
    store.importImage({ path }, raw),
    store.importImage({ stream: stream(65_521), sizeBytes: 40 * MiB }, { format: 'auto' }),
    store.importImage({ stream: stream(3 * MiB) }, raw),
  ])
  expect(new Set(digests.map(({ digest }) => digest)).size).toBe(1)
  expect(await storeFolders(images)).toMatchObject({ images: [expect.any(String)], incoming: [] })
  const other = await openTestStore(join(folder, 'other'))
  expect((await other.importImage({ path }, raw)).digest).toBe(digests[0]?.digest)
})

test('a disk that is not a whole number of blocks is filled up with zeros', async () => {
  const store = await openTestStore(join(temporaryFolder(), 'images'))
  const bytes = noise(MiB + 512)
  const record = await store.importImage({ stream: streamOf(bytes) }, raw)
  expect(record.virtualSizeBytes).toBe(MiB + 4096)
  const disk = readFileSync(store.diskPath(record.digest))
  expect(disk.equals(Buffer.concat([bytes, Buffer.alloc(4096 - 512)]))).toBe(true)
})

test('every chunk is found by its name; a rebuilt image shares the unchanged ones', async () => {
  const folder = temporaryFolder()
  const store = await openTestStore(join(folder, 'images'))
  const first = await store.importImage({ path: sampleDisk(folder) }, raw)
  const chunksOf = (digest: string) =>
    decodeLayerIndex(readFileSync(join(store.diskPath(digest), '../layer.0')), defaultLimits).chunks
  for (const { digest } of chunksOf(first.digest)) {
    const place = await store.findChunk(digest)
    const disk = readFileSync(store.diskPath(place?.image ?? ''))
    const parts = place?.extents.map(({ offsetBytes, lengthBytes }) =>
      disk.subarray(offsetBytes, offsetBytes + lengthBytes),
    )
    expect(digestOfBytes(Buffer.concat(parts ?? []))).toBe(digest)
  }
  const second = await store.importImage({ path: sampleDisk(folder, 'rebuilt.raw', 9) }, raw)
  const before = new Set(chunksOf(first.digest).map(({ digest }) => digest))
  const shared = chunksOf(second.digest).filter(({ digest }) => before.has(digest))
  expect(shared).toHaveLength(2)
  await store.remove(first.digest)
  expect(await store.findChunk(shared[0]?.digest ?? '')).toMatchObject({ image: second.digest })
  const kept = new Set(chunksOf(second.digest).map(({ digest }) => digest))
  for (const digest of before) {
    expect((await store.findChunk(digest)) !== undefined).toBe(kept.has(digest))
  }
})

test('a kernel makes another image of the same disk, which is stored once', async () => {
  const folder = temporaryFolder()
  const path = sampleDisk(folder)
  const store = await openTestStore(join(folder, 'images'))
  writeFileSync(join(folder, 'vmlinuz'), noise(100_000))
  const plain = await store.importImage({ path }, raw)
  const usedBefore = await store.usedBytes()
  const boot = {
    kernel: { path: join(folder, 'vmlinuz') },
    initrd: { stream: streamOf(Buffer.from('initrd')) },
    commandLine: 'console=ttyS0 quiet',
  }
  const booting = await store.importImage({ path }, { ...raw, boot })
  expect(booting.digest).not.toBe(plain.digest)
  expect(booting.boot).toEqual({
    kernelDigest: digestOfBytes(noise(100_000)),
    initrdDigest: digestOfBytes(Buffer.from('initrd')),
    commandLine: 'console=ttyS0 quiet',
  })
  expect(readFileSync(store.kernelPath(booting.digest) ?? '').length).toBe(100_000)
  expect(readFileSync(store.initrdPath(booting.digest) ?? '', 'utf8')).toBe('initrd')
  expect(store.kernelPath(plain.digest)).toBeUndefined()
  expect((await store.usedBytes()) - usedBefore).toBeLessThan(200_000)
  const { freedBytes } = await store.remove(plain.digest)
  expect(freedBytes).toBeLessThan(100_000)
  expect(readFileSync(store.diskPath(booting.digest)).equals(readFileSync(path))).toBe(true)
  expect((await store.remove(booting.digest)).freedBytes).toBeGreaterThan(2 * MiB)
})

test('what is used or pinned stays; this is known after a restart too', async () => {
  const folder = temporaryFolder()
  const images = join(folder, 'images')
  let store = await openTestStore(images)
  const used = (await store.importImage({ path: sampleDisk(folder, 'a', 1) }, raw)).digest
  const pinned = (await store.importImage({ path: sampleDisk(folder, 'b', 2) }, raw)).digest
  const kept = (await store.importImage({ path: sampleDisk(folder, 'c', 3) }, raw)).digest
  const idle = (await store.importImage({ path: sampleDisk(folder, 'd', 4) }, raw)).digest
  await store.use(used, { uid: '1', name: 'team/build' })
  await store.use(used, { uid: '2', name: 'team/test' })
  await store.use(used, { uid: '2', name: 'team/test' })
  await store.pin(pinned)
  await store.close()
  store = await openTestStore(images)
  expect(store.list()).toHaveLength(4)
  expect(store.users(used)).toEqual([
    { uid: '1', name: 'team/build' },
    { uid: '2', name: 'team/test' },
  ])
  const refused = await failing(store.remove(used))
  expect(isFailure(refused, 'imageInUse') && refused.message).toContain('team/build, team/test')
  await expect(store.remove(pinned)).rejects.toMatchObject({ code: 'imagePinned' })
  const before = await store.usedBytes()
  const pruned = await store.prune({ keep: ({ digest }) => digest === kept })
  expect(pruned.removed.map(({ digest }) => digest)).toEqual([idle])
  expect(pruned.freedBytes).toBeGreaterThan(2 * MiB)
  expect(before - (await store.usedBytes())).toBeGreaterThan(2 * MiB)
  await store.release(used, '1')
  await store.release(used, '2')
  await store.release(used, 'nobody')
  await store.release(idle, '1')
  await store.unpin(pinned)
  await store.prune()
  expect(store.list()).toEqual([])
  expect(await storeFolders(images)).toEqual({ images: [], incoming: [] })
  await expect(store.use(used, { uid: '1', name: 'x' })).rejects.toMatchObject({ code: 'notFound' })
})

test('only one opens a store; a lost index is made anew, a damaged one told', async () => {
  const folder = temporaryFolder()
  const images = join(folder, 'images')
  const store = await openTestStore(images)
  const { digest } = await store.importImage({ path: sampleDisk(folder) }, raw)
  await expect(openTestStore(images)).rejects.toMatchObject({ code: 'storeLocked' })
  await store.close()
  const chunk = firstChunk(1)
  await rm(join(images, 'index'), { recursive: true })
  const second = await openTestStore(images)
  expect(await second.findChunk(chunk)).toMatchObject({ image: digest })
  await second.close()
  writeFileSync(join(images, 'index/CURRENT'), 'garbage')
  const refused = await failing(openTestStore(images))
  expect(isFailure(refused, 'imageIndexCorrupt') && refused.message).toContain('No image is lost')
  const third = await openTestStore(images, { rebuildIndex: true })
  expect(await third.findChunk(chunk)).toMatchObject({ image: digest })
  expect(readFileSync(join(images, 'index.damaged/CURRENT'), 'utf8')).toBe('garbage')
})

test('what a crash leaves is cleared, and a damaged image is not listed', async () => {
  const folder = temporaryFolder()
  const images = join(folder, 'images')
  const store = await openTestStore(images)
  const { digest } = await store.importImage({ path: sampleDisk(folder, 'a', 1) }, raw)
  const other = (await store.importImage({ path: sampleDisk(folder, 'b', 2) }, raw)).digest
  const gone = (await store.importImage({ path: sampleDisk(folder, 'c', 3) }, raw)).digest
  await store.close()
  const nameOf = (each: string) => join(images, each.slice('sha256:'.length))
  // A crash between the rename that removes an image and the rest of the removal.
  await rename(nameOf(gone), join(images, 'incoming', 'half'))
  await chmod(join(nameOf(other), 'config.json'), 0o600)
  writeFileSync(join(nameOf(other), 'config.json'), '{"version":1}')
  const again = await openTestStore(images)
  expect(again.list().map(record => record.digest)).toEqual([digest])
  expect(readdirSync(join(images, 'incoming'))).toEqual([])
  expect(await again.findChunk(firstChunk(3))).toBeUndefined()
  expect(await again.findChunk(firstChunk(1))).toMatchObject({ image: digest })
})

test('chunks that a crash left half entered or half taken out are put right', async () => {
  const folder = temporaryFolder()
  const images = join(folder, 'images')
  const store = await openTestStore(images)
  const { digest } = await store.importImage({ path: sampleDisk(folder) }, raw)
  await store.close()
  const gone = `sha256:${'0'.repeat(64)}`
  const chunk = firstChunk(1)
  const index = await openChunkIndex({ folder: join(images, 'index'), rebuild: false }, silentLog)
  const place = [{ offsetBytes: 0, lengthBytes: 4096 }]
  await index.add(gone, [{ digest: gone, extents: place }])
  await index.close()
  const database = new Level<string, string>(join(images, 'index'))
  await database.put(`image!${gone}`, 'partial')
  await database.put(`image!${digest}`, 'partial')
  await database.clear({ gte: `chunk!${chunk.slice(7)}`, lte: `chunk!${chunk.slice(7)}~` })
  await database.close()
  const again = await openTestStore(images)
  expect(await again.findChunk(chunk)).toMatchObject({ image: digest })
  await again.close()
  const after = await openChunkIndex({ folder: join(images, 'index'), rebuild: false }, silentLog)
  onTestFinished(() => after.close())
  expect(await after.images()).toEqual(new Map([[digest, 'whole']]))
  expect(await after.find(gone, () => true)).toBeUndefined()
})

test('a source that fails leaves nothing behind', async () => {
  const folder = temporaryFolder()
  const images = join(folder, 'images')
  const store = await openTestStore(images)
  const broken = async function* () {
    yield noise(2 * MiB)
    throw new Error('the client went away')
  }
  await expect(store.importImage({ stream: broken() }, raw)).rejects.toThrow('went away')
  const short = { stream: streamOf(noise(MiB)), sizeBytes: 2 * MiB }
  await expect(store.importImage(short, raw)).rejects.toThrow('(truncated)')
  await expect(store.importImage({ stream: streamOf() }, raw)).rejects.toThrow('(empty)')
  const odd = { stream: streamOf(noise(1000)) }
  await expect(store.importImage(odd, raw)).rejects.toThrow('(sizeNotWholeSectors)')
  const packed = { stream: streamOf(Buffer.from('\x1f\x8b\x08\0', 'latin1')) }
  await expect(store.importImage(packed, { format: 'auto' })).rejects.toThrow('(gzip)')
  const shrinking = { path: sampleDisk(folder, 'shrinking') }
  const onProgress = () => truncateSync(shrinking.path, MiB)
  await expect(store.importImage(shrinking, { ...raw, onProgress })).rejects.toThrow('(truncated)')
  execFileSync('mkfifo', [join(folder, 'pipe')])
  for (const name of ['pipe', 'missing', '.']) {
    const path = join(folder, name)
    await expect(store.importImage({ path }, raw)).rejects.toMatchObject({
      code: 'imageSourceUnreadable',
    })
  }
  const disk = { path: sampleDisk(folder) }
  const boot = { kernel: { path: join(folder, 'missing') } }
  await expect(store.importImage(disk, { ...raw, boot })).rejects.toThrow('missing')
  const lines = { kernel: disk, commandLine: 'one\ntwo' }
  await expect(store.importImage(disk, { ...raw, boot: lines })).rejects.toThrow('one line')
  expect(await storeFolders(images)).toEqual({ images: [], incoming: [] })
})

test('limits hold: size, room on the disk, imports at once', async () => {
  const folder = temporaryFolder()
  const images = join(folder, 'images')
  const path = sampleDisk(folder)
  const full = await openTestStore(images, { limits: { imageReserveBytes: 2 ** 60 } })
  await expect(full.importImage({ path }, raw)).rejects.toMatchObject({ code: 'diskFull' })
  const stream = createReadStream(path)
  await expect(full.importImage({ stream }, raw)).rejects.toMatchObject({ code: 'diskFull' })
  await full.close()
  const small = await openTestStore(images, { limits: { diskBytes: 10 * MiB, imageImports: 1 } })
  await expect(small.importImage({ path }, raw)).rejects.toThrow('(tooLarge)')
  const long = { stream: createReadStream(path) }
  const first = failing(small.importImage(long, raw))
  await expect(small.importImage({ path }, raw)).rejects.toMatchObject({ code: 'tooMany' })
  expect(String(await first)).toContain('(tooLarge)')
  expect(await storeFolders(images)).toEqual({ images: [], incoming: [] })
})

test('an import ends when it is told to, and when the store is closed', async () => {
  const images = join(temporaryFolder(), 'images')
  const store = await openTestStore(images)
  const endless = async function* () {
    for (;;) yield noise(MiB)
  }
  const asked = new AbortController()
  const first = failing(
    store.importImage(
      { stream: endless() },
      { ...raw, signal: asked.signal, onProgress: () => asked.abort(new Error('enough')) },
    ),
  )
  expect(String(await first)).toContain('enough')
  const { promise: begun, resolve } = Promise.withResolvers<void>()
  const silent = async function* () {
    for (let part = 0; part < 40; part++) yield noise(MiB)
    await new Promise(() => {})
  }
  const second = failing(
    store.importImage({ stream: silent() }, { ...raw, onProgress: () => resolve() }),
  )
  await begun
  await store.close()
  expect(String(await second)).toContain('being closed')
  expect(await storeFolders(images)).toEqual({ images: [], incoming: [] })
})

test('verification finds every byte that is not as it should be', async () => {
  const folder = temporaryFolder()
  const store = await openTestStore(join(folder, 'images'))
  const boot = { kernel: { stream: streamOf(Buffer.from('kernel')) } }
  const { digest } = await store.importImage({ path: sampleDisk(folder) }, { ...raw, boot })
  expect(await store.verify(digest)).toEqual({ checkedChunks: 5, uncheckedChunks: 0, bad: [] })
  const damage = async (path: string, at: number) => {
    await chmod(path, 0o644)
    const handle = await open(path, 'r+')
    await handle.write(Buffer.of(0x5a), 0, 1, at)
    await handle.close()
  }
  await damage(store.diskPath(digest), MiB + 70_000)
  await damage(store.diskPath(digest), 20 * MiB + 5)
  await damage(store.kernelPath(digest) ?? '', 2)
  const { bad } = await store.verify(digest)
  expect(bad.map(({ file, offset }) => [file, offset])).toEqual([
    ['kernel', 0],
    // Where the chunk begins that the byte is in.
    ['disk', 233 * 4096],
    ['disk', 20 * MiB],
  ])
})
