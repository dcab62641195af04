import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, statfsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { isFailure } from '../../base/errors.ts'
import { defaultLimits } from '../../base/limits.ts'
import { blockBytes, encodeLayerIndex, type LayerIndex } from '../../images/layer-index.ts'
import { openPartialFolder } from '../../images/partial/partial-folder.ts'
import { digestOfBytes, noise, openTestStore, storeFolders } from '../support/images.ts'
import { mountLoop } from '../support/loop-disk.ts'
import { randomImage } from '../support/random-layers.ts'
import { contentOf, fillImage, streamOf } from '../support/store-images.ts'

const MiB = 1024 * 1024

const freeBytes = (folder: string): number => {
  execFileSync('sync', ['--file-system', folder])
  const { bavail, bsize } = statfsSync(folder)
  return bavail * bsize
}

const du = (folder: string): number =>
  Number(execFileSync('du', ['-s', '--block-size=1', folder], { encoding: 'utf8' }).split('\t')[0])

test('where the file system can, an image shares the bytes of its base', async () => {
  const mounted = mountLoop('xfs', 384)
  const images = join(mounted, 'images')
  const store = await openTestStore(images)
  const base = randomImage({ seed: 1, layerCount: 1, diskBlocks: 10_000, chunkBlocks: 256 })
  const one = randomImage({ seed: 2, layerCount: 2, diskBlocks: 10_100, base, chunkBlocks: 256 })
  const first = await fillImage(store, one)
  await store.complete(first.digest)
  const before = freeBytes(mounted)
  // Another chain over the same base: what the first hides of it has to come, and nothing else.
  const other = randomImage({ seed: 3, layerCount: 2, diskBlocks: 10_050, base, chunkBlocks: 256 })
  const second = await fillImage(store, other)
  await store.complete(second.digest)
  expect(readFileSync(store.diskPath(second.digest)).equals(other.disk)).toBe(true)
  expect(readFileSync(store.diskPath(first.digest)).equals(one.disk)).toBe(true)
  // A layer upon an image takes the layer's room: 1 MiB of data, and 8 MiB that became holes.
  const plain = noise(MiB, 5)
  const layer: LayerIndex = {
    virtualSizeBytes: other.config.virtualSizeBytes,
    chunks: [{ digest: digestOfBytes(plain), extents: [{ offsetBytes: 0, lengthBytes: MiB }] }],
    zeros: [{ offsetBytes: 16 * MiB, lengthBytes: 8 * MiB }],
  }
  const middle = freeBytes(mounted)
  const record = await store.derive({
    parent: second.digest,
    encodedLayer: encodeLayerIndex(layer),
    readChunk: async () => plain,
  })
  const right = Buffer.from(other.disk)
  plain.copy(right)
  right.fill(0, 16 * MiB, 24 * MiB)
  expect(readFileSync(store.diskPath(record.digest)).equals(right)).toBe(true)
  const dataBytes = statSync(store.diskPath(second.digest)).blocks * 512
  expect(middle - freeBytes(mounted)).toBeLessThan(4 * MiB)
  expect(statSync(store.diskPath(record.digest)).blocks * 512).toBeLessThan(dataBytes - 2 * MiB)
  expect(await store.usedBytes()).toBe(du(images))
  expect((await store.verify(record.digest)).bad).toEqual([])
  for (const { digest } of store.list()) await store.remove(digest)
  await expect.poll(() => freeBytes(mounted), { timeout: 10_000 }).toBeGreaterThan(before)
})

test('a disk that is full at any stage leaves nothing half done, and takes up later', async () => {
  const mounted = mountLoop('ext4', 48)
  const images = join(mounted, 'images')
  const store = await openTestStore(images)
  const ballast = join(mounted, 'ballast')
  const fillUp = (leftBytes: number) => {
    const lengthBytes = freeBytes(mounted) - leftBytes
    // The last block may be wanted for the file's own map.
    execFileSync('sh', ['-c', `head -c ${lengthBytes} /dev/zero >"$0" 2>/dev/null; :`, ballast])
    execFileSync('sync', ['--file-system', mounted])
  }
  const giveBack = () => execFileSync('rm', ['-f', ballast])
  const failsFull = async (work: () => Promise<unknown>) => {
    const thrown = await work().then(
      () => 'it did not fail',
      error => error,
    )
    expect(isFailure(thrown, 'diskFull'), String(thrown)).toBe(true)
  }
  const kernel = noise(2 * MiB)
  const image = randomImage({ seed: 4, layerCount: 2, diskBlocks: 4000, chunkBlocks: 256 })
  image.config.boot = { kernelDigest: digestOfBytes(kernel) }
  // Too little for its disk, for its index, for its config.
  for (const left of [6 * MiB, 64 * 1024, 4096, 0]) {
    fillUp(left)
    await failsFull(() => store.begin(contentOf(image)))
    giveBack()
    expect(await storeFolders(images)).toEqual({ images: [], incoming: [] })
    expect(readdirSync(join(images, 'filling'))).toEqual([])
  }
  const partial = await store.begin(contentOf(image))
  const digest = partial?.record.digest ?? ''
  fillUp(2 * MiB)
  await failsFull(() => fillImage(store, image))
  const blob = () =>
    store.storeBlob(digest, 'kernel', {
      stream: streamOf(kernel),
      signal: new AbortController().signal,
    })
  await failsFull(blob)
  expect(existsSync(join(partial?.folder ?? '', 'kernel'))).toBe(false)
  expect(store.partial(digest)?.missingBlobs.size).toBe(1)
  giveBack()
  await blob()
  const { put } = await fillImage(store, image)
  expect(put).toBeGreaterThan(0)
  await store.complete(digest)
  fillUp(0)
  const layer = { virtualSizeBytes: image.config.virtualSizeBytes, chunks: [], zeros: [] }
  const encodedLayer = encodeLayerIndex({
    ...layer,
    zeros: [{ offsetBytes: 0, lengthBytes: blockBytes }],
  })
  await failsFull(() =>
    store.derive({ parent: digest, encodedLayer, readChunk: async () => Buffer.alloc(0) }),
  )
  giveBack()
  expect(readFileSync(store.diskPath(digest)).equals(image.disk)).toBe(true)
  expect((await storeFolders(images)).incoming).toEqual([])
  expect(await store.usedBytes()).toBe(du(images))
  await store.remove(digest)
  expect(await store.usedBytes()).toBeLessThan(2 * MiB)
})

test('a chunk that does not fit on the disk is told, and comes when there is room', async () => {
  const mounted = mountLoop('ext4', 32)
  const store = await openTestStore(join(mounted, 'images'))
  const image = randomImage({ seed: 6, layerCount: 1, diskBlocks: 4000, chunkBlocks: 256 })
  const partial = await store.begin(contentOf(image))
  const digest = partial?.record.digest ?? ''
  const ballast = join(mounted, 'ballast')
  execFileSync('fallocate', ['-l', `${freeBytes(mounted) - 3 * MiB}`, ballast])
  const disk = await openPartialFolder(partial?.folder ?? '', digest, defaultLimits)
  let thrown: unknown
  for (const name of disk.allMissing()) {
    const bytes = image.chunks[name.layer]?.[name.chunk] ?? Buffer.alloc(0)
    thrown = await disk.put(name, bytes).catch(error => error)
    if (thrown !== undefined) break
    thrown = await disk.flush().then(
      () => undefined,
      error => error,
    )
    if (thrown !== undefined) break
  }
  expect(isFailure(thrown, 'diskFull'), String(thrown)).toBe(true)
  execFileSync('rm', [ballast])
  await disk.close()
  await fillImage(store, image)
  await store.complete(digest)
  expect(readFileSync(store.diskPath(digest)).equals(image.disk)).toBe(true)
})
