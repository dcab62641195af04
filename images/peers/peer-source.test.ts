import { createHash } from 'node:crypto'
import { closeSync, openSync, renameSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { incompressible, makePeerImage, type PeerImage } from '../../test/support/peer-images.ts'
import { collect, readAll, startServingHost } from '../../test/support/peer-server.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import { encodeConfig } from '../encode-config.ts'
import type { LayerSource } from '../sources/source.ts'
import { emptyBits, putBit } from '../transfer/bitmap.ts'

const MiB = 1024 * 1024
const signal = new AbortController().signal

/** Opens one of an image's layers at a source. */
async function layerOf(
  { served, indexes }: PeerImage,
  source: { openLayer(...parts: never[]): Promise<LayerSource> },
  at = 0,
): Promise<LayerSource> {
  const open = source.openLayer as (...parts: unknown[]) => Promise<LayerSource>
  return open(served.config.layers[at]?.digest, indexes[at], signal)
}

/** Names of chunks, made of their bytes. */
const digests = (bytes: readonly Buffer[]) =>
  bytes.map(each => `sha256:${createHash('sha256').update(each).digest('hex')}`)

test('a host gets an image: its config, index and kernel, and chunks as it asks', async () => {
  const kernel = incompressible(3 * MiB + 5)
  const image = await makePeerImage(temporaryFolder(), [incompressible(12 * MiB)], kernel)
  const host = await startServingHost([image.served])
  const source = host.sourceFor(host.join('asking'))
  const { digest, config } = image.served
  const written = await readAll(source.readBlob(digest, 10_000, signal))
  expect(written.toString()).toBe(encodeConfig(config))
  const kernelDigest = config.boot?.kernelDigest ?? ''
  expect(await readAll(source.readBlob(kernelDigest, 4 * MiB, signal))).toEqual(kernel)
  const layer = await layerOf(image, source)
  expect(await layer.held(signal)).toBeUndefined()
  const asked = [7, 3, 4, 5, 11, 0]
  const { numbers, bytes } = await collect(layer.fetch(asked, signal))
  expect(numbers).toEqual(asked)
  expect(digests(bytes)).toEqual(asked.map(number => image.indexes[0]?.chunks[number]?.digest))
  expect(host.rot).toEqual([])
})

test('more chunks than one request may name come too', async () => {
  const image = await makePeerImage(temporaryFolder(), [incompressible(9 * MiB)])
  const host = await startServingHost([image.served], { limits: { transferRequestChunks: 4 } })
  const layer = await layerOf(image, host.sourceFor(host.join('asking')))
  const all = [...(image.indexes[0]?.chunks.keys() ?? [])]
  expect((await collect(layer.fetch(all, signal))).numbers).toEqual(all)
})

test('what is not here is not found, and a blob ends at its bound', async () => {
  const image = await makePeerImage(temporaryFolder(), [incompressible(MiB)])
  const host = await startServingHost([image.served])
  const source = host.sourceFor(host.join('asking'))
  const other = `sha256:${'0'.repeat(64)}`
  await expect(readAll(source.readBlob(other, 100, signal))).rejects.toMatchObject({
    code: 'notFound',
  })
  const layer = await source.openLayer(
    other,
    { virtualSizeBytes: 0, chunks: [], zeros: [] },
    signal,
  )
  await expect(layer.held(signal)).rejects.toMatchObject({ code: 'notFound' })
  await expect(collect(layer.fetch([0], signal))).rejects.toMatchObject({ code: 'notFound' })
  const { digest } = image.served
  await expect(readAll(source.readBlob(digest, 10, signal))).rejects.toMatchObject({
    code: 'sourceFailed',
  })
})

test('a partial image gives what it has, and more as it fills', async () => {
  const image = await makePeerImage(temporaryFolder(), [incompressible(8 * MiB)])
  const stored = emptyBits(8)
  for (const chunk of [1, 6]) putBit(stored, chunk, true)
  const host = await startServingHost([{ ...image.served, stored: [stored] }])
  const layer = await layerOf(image, host.sourceFor(host.join('asking')))
  expect(await layer.held(signal)).toEqual(stored)
  expect((await collect(layer.fetch([0, 1, 2, 6, 7], signal))).numbers).toEqual([1, 6])
  host.server.addStored(image.served.digest, 0, [2, 7])
  await expect.poll(() => layer.held(signal)).toEqual(Uint8Array.of(0b11000110))
  expect((await collect(layer.fetch([0, 1, 2, 6, 7], signal))).numbers).toEqual([1, 2, 6, 7])
  // Whole now, and in its own place.
  const folder = join(temporaryFolder(), 'whole')
  renameSync(image.served.folder, folder)
  host.server.setImage({ ...image.served, folder })
  await expect.poll(() => layer.held(signal)).toBeUndefined()
  expect((await collect(layer.fetch([0], signal))).numbers).toEqual([0])
})

test('of a covered layer what is seen whole is given, from whichever image', async () => {
  const base = incompressible(4 * MiB)
  const above = Buffer.alloc(4 * MiB)
  incompressible(4096).copy(above, MiB + 8192)
  const folder = temporaryFolder()
  const image = await makePeerImage(folder, [base, above])
  const host = await startServingHost([image.served])
  const source = host.sourceFor(host.join('asking'))
  const layer = await layerOf(image, source)
  expect(await layer.held(signal)).toEqual(Uint8Array.of(0b1101))
  expect((await collect(layer.fetch([0, 1, 2, 3], signal))).numbers).toEqual([0, 2, 3])
  const top = await collect((await layerOf(image, source, 1)).fetch([0], signal))
  expect(digests(top.bytes)).toEqual([image.indexes[1]?.chunks[0]?.digest])
  const parent = await makePeerImage(folder, [base])
  host.server.setImage(parent.served)
  await expect.poll(() => layer.held(signal)).toBeUndefined()
  expect((await collect(layer.fetch([1], signal))).numbers).toEqual([1])
  await host.server.removeImage(parent.served.digest)
  expect((await collect(layer.fetch([1], signal))).numbers).toEqual([])
})

test('rot is told of, and never arrives', async () => {
  const kernel = incompressible(2 * MiB)
  const image = await makePeerImage(temporaryFolder(), [incompressible(4 * MiB)], kernel)
  const { folder, digest, config } = image.served
  const disk = openSync(join(folder, 'disk.raw'), 'r+')
  writeSync(disk, 'rot', 2 * MiB + 77)
  closeSync(disk)
  const host = await startServingHost([image.served])
  const source = host.sourceFor(host.join('asking'))
  const layer = await layerOf(image, source)
  expect((await collect(layer.fetch([0, 1, 2, 3], signal))).numbers).toEqual([0, 1, 3])
  expect(await layer.held(signal)).toEqual(Uint8Array.of(0b1011))
  expect((await collect(layer.fetch([2], signal))).numbers).toEqual([])
  await expect.poll(() => host.rot).toMatchObject([{ image: digest, part: { layer: 0, chunk: 2 } }])
  // Mended, it is served again.
  const mended = openSync(join(folder, 'disk.raw'), 'r+')
  writeSync(mended, image.disk, 2 * MiB, MiB, 2 * MiB)
  closeSync(mended)
  host.server.setImage(image.served)
  await expect.poll(() => layer.held(signal)).toBeUndefined()
  expect((await collect(layer.fetch([2], signal))).numbers).toEqual([2])
  rmSync(join(folder, 'kernel'))
  writeFileSync(join(folder, 'kernel'), Buffer.concat([kernel.subarray(0, -1), Buffer.of(1, 2)]))
  const kernelDigest = config.boot?.kernelDigest ?? ''
  await expect(readAll(source.readBlob(kernelDigest, 4 * MiB, signal))).rejects.toMatchObject({
    code: 'sourceFailed',
  })
  await expect.poll(() => host.rot.at(-1)).toMatchObject({ part: { blob: kernelDigest } })
})

test('an index that is rotten gives nothing of its image', async () => {
  const image = await makePeerImage(temporaryFolder(), [incompressible(2 * MiB)])
  rmSync(join(image.served.folder, 'layer.0'))
  writeFileSync(join(image.served.folder, 'layer.0'), 'rot')
  const host = await startServingHost([image.served])
  const layer = await layerOf(image, host.sourceFor(host.join('asking')))
  await expect(layer.held(signal)).rejects.toMatchObject({ code: 'notFound' })
  expect((await collect(layer.fetch([0, 1], signal))).numbers).toEqual([])
  expect(host.rot).toMatchObject([{ part: { blob: image.served.config.layers[0]?.digest } }])
})

test('over a slow link chunks come packed, where that helps', async () => {
  const text = Buffer.alloc(24 * MiB, 'all work and no play ')
  incompressible(4 * MiB).copy(text)
  const image = await makePeerImage(temporaryFolder(), [text])
  const host = await startServingHost([image.served], { bytesPerSecond: 8 * MiB })
  const layer = await layerOf(image, host.sourceFor(host.join('asking')))
  await collect(layer.fetch([0, 1, 2, 3], signal))
  const began = performance.now()
  const rest = [...Array(20).keys()].map(at => at + 4)
  const { numbers, bytes } = await collect(layer.fetch(rest, signal))
  expect(numbers).toEqual(rest)
  expect(digests(bytes)).toEqual(rest.map(number => image.indexes[0]?.chunks[number]?.digest))
  // Plain they would take 2.5 s.
  expect(performance.now() - began).toBeLessThan(1_500)
})
