import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { defaultLimits } from '../../base/limits.ts'
import { containerOf, headerOf, type TestEntry, tarOf } from '../../test/support/containers.ts'
import { digestOfBytes, noise, openTestStore, storeFolders } from '../../test/support/images.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import type { ContainerImage } from './container-image.ts'
import { openWrappedDisk, type WrappedBounds } from './wrapped-disk.ts'

const MiB = 1024 * 1024
const disk = noise(3 * MiB)

interface Reading {
  bounds?: Partial<WrappedBounds>
  partBytes?: number
  signal?: AbortSignal
}

/** Opens the disk of these layers; blobs come in parts of an odd size. */
function open(
  { image, blobs }: { image: ContainerImage; blobs: Map<string, Buffer> },
  { bounds, partBytes = 65_521, signal = new AbortController().signal }: Reading = {},
) {
  const source = {
    name: 'registry.example.test/disk:1',
    async *openBlob(digest: string) {
      const blob = blobs.get(digest) ?? Buffer.alloc(0)
      for (let at = 0; at < blob.length; at += partBytes) yield blob.subarray(at, at + partBytes)
    },
  }
  return openWrappedDisk(image, source, { bounds: { ...defaultLimits, ...bounds }, signal })
}

async function readAll(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const part of stream) parts.push(part)
  return Buffer.concat(parts)
}

/** Layers that are not packed, base first. */
async function plain(...layers: TestEntry[][]) {
  const tars = await Promise.all(layers.map(entries => tarOf(...entries)))
  return containerOf(tars.map(tar => ({ sent: tar, plain: tar })))
}

const take = async (...layers: TestEntry[][]) => {
  const found = await open(await plain(...layers))
  return { name: found.name, digest: digestOfBytes(await readAll(found.stream)) }
}

const file = (name: string, bytes = disk): TestEntry => ({ name, bytes })
const refusedFor = (detail: RegExp | string) =>
  expect.objectContaining({ code: 'wrappedDiskRefused', message: expect.stringMatching(detail) })

test('the disk is found whatever its layer is packed by', async () => {
  const tar = await tarOf({ name: 'disk/', type: 'directory' }, file('./disk/vm.img'))
  const half = Math.floor(tar.length / 2)
  const skippable = Buffer.alloc(8 + 100)
  skippable.writeUInt32LE(0x184d2a57)
  skippable.writeUInt32LE(100, 4)
  const [first, second] = [tar.subarray(0, half), tar.subarray(half)]
  const packings = [
    tar,
    gzipSync(tar),
    Buffer.concat([gzipSync(first), gzipSync(second)]),
    zstdCompressSync(tar),
    Buffer.concat([
      ...[skippable, zstdCompressSync(first), skippable],
      ...[zstdCompressSync(second), zstdCompressSync(Buffer.alloc(0)), skippable],
    ]),
  ]
  for (const sent of packings) {
    for (const partBytes of [1009, 65_521, 64 * MiB]) {
      const found = await open(containerOf([{ sent, plain: tar }]), { partBytes })
      expect(found).toMatchObject({ name: 'vm.img', sizeBytes: disk.length, format: 'auto' })
      expect((await readAll(found.stream)).equals(disk)).toBe(true)
    }
  }
})

test('the layers are seen as one upon the other', async () => {
  const old = noise(4096, 2)
  expect(await take([file('disk/a.raw', old)], [file('disk/a.raw')])).toEqual({
    name: 'a.raw',
    digest: digestOfBytes(disk),
  })
  const hiding = [
    file('disk/.wh.b.qcow2', Buffer.alloc(0)),
    file('disk/.wh..wh..opq', Buffer.alloc(0)),
    file('.wh.disk', Buffer.alloc(0)),
    file('.wh..wh..opq', Buffer.alloc(0)),
    { name: 'disk', type: 'symlink', linkname: 'etc' } as const,
    { name: 'disk/b.qcow2', type: 'symlink', linkname: '/etc/shadow' } as const,
    { name: 'disk/b.qcow2', type: 'directory' } as const,
  ]
  for (const entry of hiding) {
    await expect(take([file('disk/b.qcow2', old)], [entry])).rejects.toEqual(refusedFor('disk'))
    // It hides what is below it, and nothing above it.
    expect(await take([file('disk/b.qcow2', old)], [entry], [file('disk/a.raw')])).toEqual({
      name: 'a.raw',
      digest: digestOfBytes(disk),
    })
  }
  // In its own layer it hides nothing.
  expect(await take([file('disk/.wh.a.raw', Buffer.alloc(0)), file('disk/a.raw')])).toMatchObject({
    name: 'a.raw',
  })
})

test('what is no disk is named; two disks are one too many', async () => {
  const link = { type: 'symlink', linkname: '/etc/shadow' } as const
  const cases: [string, TestEntry[][]][] = [
    ['nothing in /disk', [[file('etc/disk/a.raw'), file('a.raw'), file('disk/deep/a.raw')]]],
    ['"a.raw" \\(a symbolic link\\)', [[{ name: 'disk/a.raw', ...link }]]],
    ['"a.raw" \\(a hard link\\)', [[{ name: 'disk/a.raw', type: 'link', linkname: 'etc/x' }]]],
    ['"a.raw" \\(a device', [[{ name: 'disk/a.raw', type: 'block-device', devmajor: 8 }]]],
    ['"a.raw" \\(a device', [[{ name: 'disk/a.raw', type: 'fifo' }]]],
    ['holes left out', [[{ ...file('disk/a.raw'), pax: { 'GNU.sparse.major': '1' } }]]],
    ['"vm.vmdk" \\(a file of another', [[file('disk/vm.vmdk'), file('disk/.raw')]]],
    ['"disk/../disk/a.raw"', [[file('disk/../disk/a.raw')]]],
    ['"../disk/a.raw"', [[file('disk/b.raw')], [file('../disk/a.raw')]]],
    ['two disks, "a.raw" and "b.img"', [[file('disk/a.raw'), file('disk/b.img')]]],
    ['two disks, "b.img" and "a.raw"', [[file('disk/a.raw')], [file('disk/b.img')]]],
    ['there twice', [[file('disk/a.raw'), file('/disk//a.raw')]]],
  ]
  for (const [detail, layers] of cases) {
    await expect(take(...layers), detail).rejects.toEqual(refusedFor(detail))
  }
  // A name is taken for what it is, however it is written.
  expect(await take([file('/./disk//a.raw')])).toMatchObject({ name: 'a.raw' })
})

test('digests decide at the end, whatever came', async () => {
  const tar = await tarOf(file('disk/a.raw'))
  const packed = gzipSync(tar)
  const wrong = containerOf([{ sent: packed, plain: digestOfBytes(disk) }])
  const other = containerOf([{ sent: packed, plain: tar }])
  const [digest = ''] = other.blobs.keys()
  const bent = Buffer.from(tar)
  bent[700] = (bent[700] ?? 0) ^ 1
  other.blobs.set(digest, gzipSync(bent))
  const behind = Buffer.concat([zstdCompressSync(tar), Buffer.from('more and more')])
  const longer = containerOf([{ sent: behind, plain: tar }])
  const long = containerOf([{ sent: tar, plain: tar }])
  long.blobs.set(digestOfBytes(tar), Buffer.concat([tar, Buffer.alloc(10_240)]))
  const short = containerOf([{ sent: tar, plain: tar }])
  short.blobs.set(digestOfBytes(tar), tar.subarray(0, MiB))
  for (const container of [wrong, other, longer, long, short]) {
    const folder = join(temporaryFolder(), 'images')
    const store = await openTestStore(folder)
    const importing = open(container).then(found =>
      store.importImage(found, { format: found.format }),
    )
    await expect(importing).rejects.toMatchObject({ code: 'contentDiffers' })
    expect(await storeFolders(folder)).toMatchObject({ images: [], incoming: [] })
  }
  const lower = containerOf([
    { sent: tar, plain: digestOfBytes(disk) },
    { sent: await tarOf(file('disk/b.raw')), plain: await tarOf(file('disk/b.raw')) },
  ])
  await expect(open(lower).then(found => readAll(found.stream))).rejects.toMatchObject({
    code: 'wrappedDiskRefused',
  })
})

test('an archive that is damaged, cut or without an end is refused', async () => {
  const tar = await tarOf(file('disk/a.raw'))
  const cut = tar.subarray(0, MiB)
  const packed = zstdCompressSync(tar)
  const half = packed.subarray(0, packed.length - 5000)
  const junk = Buffer.concat([gzipSync(tar), Buffer.from('more')])
  const rubbish = noise(MiB)
  const cases: [string, { sent: Buffer; plain: Buffer }][] = [
    ['Unexpected end', { sent: cut, plain: cut }],
    ['damaged', { sent: half, plain: tar }],
    ['damaged', { sent: junk, plain: tar }],
    ['damaged', { sent: rubbish, plain: rubbish }],
  ]
  for (const [detail, layer] of cases) {
    const reading = open(containerOf([layer])).then(found => readAll(found.stream))
    await expect(reading, detail).rejects.toEqual(refusedFor(detail))
  }
})

test('nothing that an archive says makes us hold or read without an end', async () => {
  const many = Array.from({ length: 2000 }, (_, at) => ({ name: `etc/${at}` }))
  await expect(
    open(await plain([...many, file('disk/a.raw')]), { bounds: { wrappedEntries: 1000 } }),
  ).rejects.toEqual(refusedFor('over 1000 files'))
  const names = Array.from({ length: 1100 }, (_, at) => ({ name: `disk/${at}` }))
  await expect(open(await plain(names))).rejects.toEqual(refusedFor('over 1024 names'))

  const attributes = Buffer.from(`999999 comment=${'x'.repeat(999_980)}\n`)
  const endings: Buffer[] = [
    Buffer.concat([headerOf('long', 3 * MiB, 'x'), attributes, Buffer.alloc(4 * MiB)]),
    Buffer.concat([headerOf('long', 2 ** 50, 'L'), Buffer.alloc(4 * MiB)]),
    Buffer.alloc(16 * MiB),
    Buffer.concat([await tarOf({ name: 'etc/x' }), Buffer.alloc(16 * MiB)]),
  ]
  for (const tar of endings) {
    await expect(open(containerOf([{ sent: tar, plain: tar }]))).rejects.toEqual(
      refusedFor('between entries|max size|nothing in /disk'),
    )
  }

  const huge = headerOf('disk/a.raw', 2 ** 52)
  await expect(open(containerOf([{ sent: huge, plain: huge }]))).rejects.toEqual(
    refusedFor('more than'),
  )
})

test('a little that unpacks to very much is given up early', async () => {
  // 96 MiB of zeros in frames that zstd makes very small.
  const frame = zstdCompressSync(Buffer.alloc(4 * MiB))
  const head = zstdCompressSync(headerOf('disk/a.raw', 2 ** 40))
  const bomb = Buffer.concat([head, ...Array.from({ length: 24 }, () => frame)])
  expect(bomb.length).toBeLessThan(20_000)
  const found = await open(containerOf([{ sent: bomb, plain: digestOfBytes(disk) }]), {
    bounds: { wrappedRatio: 16 },
  })
  let doneBytes = 0
  const read = async () => {
    for await (const part of found.stream) doneBytes += part.length
  }
  await expect(read()).rejects.toEqual(refusedFor('packed bytes become'))
  expect(doneBytes).toBeLessThan(66 * MiB)
})

test('a reader that gives up, or is told to, leaves nothing open', async () => {
  const container = await plain([file('disk/a.raw')])
  let opened = 0
  const source = {
    name: 'registry.example.test/disk:1',
    async *openBlob(digest: string, signal: AbortSignal) {
      opened++
      try {
        yield (container.blobs.get(digest) ?? Buffer.alloc(0)).subarray(0, MiB)
        signal.throwIfAborted()
        await new Promise((_, reject) =>
          signal.addEventListener('abort', () => reject(signal.reason), { once: true }),
        )
      } finally {
        opened--
      }
    },
  }
  const ended = new AbortController()
  const how = { bounds: defaultLimits, signal: ended.signal }
  const left = await openWrappedDisk(container.image, source, how)
  await left.close()
  await expect.poll(() => opened).toBe(0)
  const silent = await openWrappedDisk(container.image, source, how)
  const reading = readAll(silent.stream)
  ended.abort(new Error('enough'))
  await expect(reading).rejects.toThrow('enough')
  await expect.poll(() => opened).toBe(0)
})

test('a disk in an image is the same image as the disk itself', async () => {
  const folder = join(temporaryFolder(), 'images')
  const store = await openTestStore(folder)
  const found = await open(await plain([file('disk/a.raw')]))
  const record = await store.importImage(found, { format: found.format })
  expect(readFileSync(store.diskPath(record.digest)).equals(disk)).toBe(true)
})
